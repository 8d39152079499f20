"""Connections that nobody can hold for ever: time and size limits of headers, a limit of number.

uvicorn leaves these to a proxy in front of it: its only timeout is that of idle connections, which
a byte now and then keeps open, and httptools collects a header of any length. This is uvicorn's own
protocol with the limits that Node's server, which uses the same parser, has around it.
"""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from apps.server.errors import SERVER, ApiError
from apps.server.safety.answers import body_of, headers_of
from apps.server.safety.limits import ConnectionLimits

MAX_HEADER_BYTES = 65_536  # of one request, its address included
MAX_HEADERS = 100
# Bytes of a chunked body's frame for each byte of its content: the smallest chunk has five.
FRAME = 8

MALFORMED = ApiError(400, "The request is not valid HTTP.", "invalid_http")
TOO_LARGE = ApiError(
    431, f"The request's headers are larger than {MAX_HEADER_BYTES} bytes.", "headers_too_large"
)
TOO_SLOW = ApiError(408, "The request's headers did not arrive in time.", "request_timeout")
TOO_MANY = ApiError(
    503,
    "The server has as many connections as it takes. Come again later.",
    "too_many_connections",
    type=SERVER,
    headers={"Retry-After": "5"},
)


class GuardedConnection(HttpToolsProtocol):
    """One connection, with limits."""

    limits: ClassVar[ConnectionLimits]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._refusal = MALFORMED
        self._headers_due: asyncio.TimerHandle | None = None
        self._write_due: asyncio.TimerHandle | None = None
        self._in_headers = self._begun = self._in_body = False
        self._received = self._content = self._header_bytes = 0
        if len(self.connections) > self.limits.connections:
            self._refuse(TOO_MANY)
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_headers()
        self.resume_writing()
        super().connection_lost(exc)

    # -- what comes ------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._idle and self._headers_due is None:
            self._expect_headers()  # line breaks before a request are none of it, and cost, too
        self._begun = False
        super().data_received(data)
        if self._begun or not (self._in_headers or self._in_body):
            return
        self._received += len(data)
        if self._received > MAX_HEADER_BYTES + (1 + FRAME) * self._content:
            self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = self._begun = True
        self._received = self._content = self._header_bytes = 0
        if self._headers_due is None:
            self._expect_headers()

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        if len(self.headers) >= MAX_HEADERS:
            self._refusal = TOO_LARGE
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._forget_headers()
        self._in_headers, self._in_body = False, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refusal = TOO_LARGE
            raise ValueError("headers too large")  # httptools gives up, and asks for an answer

    def _unsupported_upgrade_warning(self) -> None:
        """Answer as if no other protocol had been asked for, and end the connection then."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # -- what is refused -------------------------------------------------------

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_headers(self) -> None:
        delay = self.limits.header_seconds
        self._headers_due = self.loop.call_later(delay, self._headers_are_late)

    def _forget_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _headers_are_late(self) -> None:
        self._headers_due = None
        if self.flow.read_paused:  # it is this side that does not read
            self._expect_headers()
        elif self._in_headers:
            self._refuse(TOO_SLOW)
        elif self._idle and not self.transport.is_closing():
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def _refuse(self, error: ApiError) -> None:
        """Answer, if there is no answer on its way already, and end the connection."""
        if self.transport.is_closing():
            return
        if not self._idle or (self.cycle is not None and self._in_body):
            self.transport.abort()
            return
        body = body_of(error)
        fields = [*headers_of(error, body), (b"connection", b"close")]
        reason = HTTPStatus(error.status).phrase
        lines = [f"HTTP/1.1 {error.status} {reason}".encode()]
        lines += [name + b": " + value for name, value in fields]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()

    # -- what goes -------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_due is None:
            self._write_due = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_due is not None:
            self._write_due.cancel()
            self._write_due = None
        super().resume_writing()


def connection_class(limits: ConnectionLimits) -> Any:
    """uvicorn's protocol with these limits, for `uvicorn.Config(http=…)`."""
    return type("LimitedConnection", (GuardedConnection,), {"limits": limits})
