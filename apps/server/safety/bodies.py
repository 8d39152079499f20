"""Bodies of requests: how large, how slow, how packed, checked before anything reads them."""

import asyncio
import email.message

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.openai_images.json_bodies import check_json
from apps.server.errors import SERVER, ApiError
from apps.server.safety.answers import refuse
from apps.server.safety.limits import MIB, BodyLimits

LINGERING = 2.0  # seconds in which the rest of a refused body is read, so that its sender listens
LINGERING_BYTES = 16 * MIB


class Bodies:
    """Hands requests on with bodies that are within the limits."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(reversed(scope["headers"]))  # the first of several is what routes see
        try:
            length = int(headers.get(b"content-length", b"0"))
        except ValueError:
            length = 0
        body = _Body(receive, self._limits, _kind(headers), length)
        sender = _Sender(send, body)
        if not length and b"transfer-encoding" not in headers:
            body.complete = True
        try:
            _check_headers(headers, body)
            if body.is_json and not body.complete:
                await self._serve_json(scope, body, sender)
            else:
                await self._app(scope, body.receive, sender.send)
        except _Refused:
            pass
        except ApiError as error:
            body.refusal = error
        if body.refusal is not None and not sender.started:
            await refuse(sender.send_refusal, body.refusal)

    async def _serve_json(self, scope: Scope, body: "_Body", sender: "_Sender") -> None:
        held: list[bytes] = []
        size = 0
        try:
            while not body.complete:
                message = await body.receive()
                if message["type"] == "http.disconnect":
                    return
                held.append(message["body"])
                size += len(message["body"])
                self._buffered += len(message["body"])
                if self._buffered > self._limits.buffered_bytes:
                    raise ApiError(
                        503,
                        "The server reads as many requests as it has memory for. Come again later.",
                        "overloaded",
                        type=SERVER,
                        headers={"Retry-After": "5"},
                    )
            whole: bytes | None = b"".join(held)
            held.clear()
            assert whole is not None
            if whole:
                check_json(whole)
        finally:
            self._buffered -= size

        async def replay() -> Message:
            nonlocal whole
            if whole is None:
                return await body.receive()
            content, whole = whole, None
            return {"type": "http.request", "body": content, "more_body": False}

        await self._app(scope, replay, sender.send)


class _Refused(HTTPException):
    """Ends whatever reads a body that is refused; of a kind that nothing takes for a defect."""

    def __init__(self) -> None:
        super().__init__(400)


class _Body:
    """The body of one request, as it comes."""

    def __init__(self, receive: Receive, limits: BodyLimits, kind: str, length: int) -> None:
        self.is_json = kind == "json"
        self.is_upload = kind == "upload"
        self.complete = False
        self.refusal: ApiError | None = None
        self._most = limits.upload_bytes if self.is_upload else limits.json_bytes
        self._received = 0
        self._waited = 0.0
        self._gone = False
        self._receive = receive
        self._limits = limits
        if length > self._most:
            self.refusal = self._too_large()

    async def receive(self) -> Message:
        """The next part.

        Raises:
            _Refused: it is too much or too late; `refusal` says so.
        """
        if self.refusal is not None:
            raise _Refused
        if self.complete:
            return await self._receive()
        allowed = self._limits.seconds + self._received / self._limits.bytes_per_second
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(max(0.0, allowed - self._waited)):
                message = await self._receive()
        except TimeoutError:
            message = await self._come_meanwhile()
        self._waited += clock() - started
        if message["type"] != "http.request":
            self._gone = True
            return message
        self._received += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self._received > self._most:
            raise self._refuse(self._too_large())
        return message

    async def _come_meanwhile(self) -> Message:
        """The next part, if it is there: on a busy machine this process may have been late."""
        try:
            async with asyncio.timeout(0):
                return await self._receive()
        except TimeoutError:
            late = ApiError(408, "The body did not arrive in time.", "request_timeout")
            raise self._refuse(late) from None

    async def linger(self) -> None:
        """Read on for a moment: a sender that is cut off may not see the answer."""
        read = 0
        try:
            async with asyncio.timeout(LINGERING):
                while not (self.complete or self._gone) and read < LINGERING_BYTES:
                    message = await self._receive()
                    self._gone = message["type"] != "http.request"
                    self.complete = not message.get("more_body", False)
                    read += len(message.get("body", b""))
        except TimeoutError:
            pass

    def _refuse(self, error: ApiError) -> _Refused:
        self.refusal = error
        return _Refused()

    def _too_large(self) -> ApiError:
        what = "upload" if self.is_upload else "body"
        return ApiError(
            413, f"The {what} is larger than {self._most / MIB:g} MiB.", "request_too_large"
        )


class _Sender:
    """Answers, but not beside a refusal; a connection with half a body on it ends with them."""

    def __init__(self, send: Send, body: _Body) -> None:
        self.started = False
        self._send = send
        self._body = body

    async def send(self, message: Message) -> None:
        if self._body.refusal is not None and not self.started:
            return  # what reads the body made of its end; the refusal says it better
        await self.send_refusal(message)

    async def send_refusal(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if not self._body.complete:
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
        elif not (message.get("more_body") or self._body.complete):
            await self._send({**message, "more_body": True})
            await self._body.linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)


def _check_headers(headers: dict[bytes, bytes], body: _Body) -> None:
    if body.refusal is not None:
        raise body.refusal
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", b""):
        raise ApiError(
            415,
            f"Content-Encoding: {encoding[:40].decode('latin-1')!r} is not taken; send the body as "
            "it is.",
            "unsupported_content_encoding",
        )
    charset = _content_type(headers).get_content_charset() if not body.complete else None
    if charset not in (None, "utf-8", "utf8", "us-ascii"):
        raise ApiError(415, "The body's charset must be UTF-8.", "unsupported_charset")


def _kind(headers: dict[bytes, bytes]) -> str:
    """What FastAPI takes a body for: JSON, an upload, or neither."""
    found = _content_type(headers)
    if found.get_content_type() == "multipart/form-data":
        return "upload"
    subtype = found.get_content_subtype()
    named = b"content-type" in headers and found.get_content_maintype() == "application"
    return "json" if named and (subtype == "json" or subtype.endswith("+json")) else ""


def _content_type(headers: dict[bytes, bytes]) -> email.message.Message:
    found = email.message.Message()
    found["content-type"] = headers.get(b"content-type", b"").decode("latin-1")
    return found
