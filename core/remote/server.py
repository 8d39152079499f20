"""A daemon as its commands talk to it: requests, errors and followed events.

The standard library's client does: httpx takes as long to import as everything else of a command.
"""

import http.client
import json
import os
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import InputError

KEY_VARIABLE = "MULTI_GPU_IMAGES_API_KEY"
TIMEOUT = 60.0  # seconds without a byte; followed jobs say something every 15
_COME_AGAIN = (429, 502, 503, 504, 507)


class ServerLost(Exception):
    """The daemon cannot be reached, or the connection broke off."""


class ServerBusy(Exception):
    """The daemon takes nothing at this moment.

    Attributes:
        seconds: after which it may.
        leaving: it is about to stop.
    """

    def __init__(self, message: str, seconds: float, leaving: bool) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.leaving = leaving


class ServerRefusal(Exception):
    """The daemon's answer is no.

    Attributes:
        status: of HTTP.
        code: the daemon's word for the reason, if it gave one.
    """

    def __init__(self, message: str, status: int, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class SentEvent:
    """One server-sent event."""

    kind: str
    data: Any
    id: str


class Server:
    """Where a daemon is, and requests to it; for several threads.

    Args:
        place: an http or https URL, or the path of a socket.
        key: an API key.

    Attributes:
        max_tasks: of one job there; None until it said so.
        is_local: it is reached by this user's socket, and reads files of this machine in place.

    Raises:
        InputError: the URL is none.
    """

    def __init__(self, place: str | Path, key: str | None = None) -> None:
        self.max_tasks: int | None = None
        self.is_local = isinstance(place, Path)
        self.name = str(place)
        self._path = place if isinstance(place, Path) else None
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        if self._path is None:
            url = urllib.parse.urlsplit(str(place))
            try:
                host, port = url.hostname, url.port
            except ValueError:
                host = port = None
            if url.scheme not in ("http", "https") or not host or url.query or url.fragment:
                raise InputError(
                    f"use_server: {place!r} is no URL of a server; http://127.0.0.1:8000 is one."
                )
            self._tls, self._host, self._port = url.scheme == "https", host, port
            self._base = url.path.rstrip("/")
        else:
            self._base = ""

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._path is not None:
            return _SocketConnection(self._path, timeout)
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=timeout)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection(timeout)
        try:
            try:
                all_headers = {**self._headers, **headers, "Connection": "close"}
                connection.request(method, self._base + path, body, all_headers)
                answer = connection.getresponse()
                if answer.status >= 400:
                    raise _error_of(answer)
                yield answer
            except (OSError, http.client.HTTPException) as error:
                raise ServerLost(str(error) or type(error).__name__) from None
        finally:
            connection.close()

    def call(
        self,
        method: str,
        path: str,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Any:
        """What the daemon answers, as JSON."""
        body = None if content is None else json.dumps(content).encode()
        all_headers = {**({"Content-Type": "application/json"} if body else {}), **(headers or {})}
        with self._answer(method, path, body, all_headers, timeout) as answer:
            return _json(answer)

    def content(self, path: str) -> bytes:
        """A file that the daemon has."""
        with self._answer("GET", path, None, {}, TIMEOUT) as answer:
            return answer.read()

    def upload(self, path: str, name: str, data: bytes) -> Any:
        """Send a file, as forms do (multipart/form-data)."""
        border = os.urandom(16).hex()
        fields = f'--{border}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n'
        head = (
            f'{fields}--{border}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        body = head.encode() + data + f"\r\n--{border}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={border}"}
        with self._answer("POST", path, body, headers, TIMEOUT) as answer:
            return _json(answer)

    def events(self, path: str, last: str) -> Iterator[SentEvent]:
        """Server-sent events from the one after `last` on, until the daemon ends the stream.

        https://html.spec.whatwg.org/multipage/server-sent-events.html
        """
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        with self._answer("GET", path, None, headers, TIMEOUT) as answer:
            kind, data, id = "message", [], ""
            for raw in answer:
                line = raw.decode().rstrip("\r\n")
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "event":
                    kind = value
                elif name == "data":
                    data.append(value)
                elif name == "id":
                    id = value
                elif not line:
                    if data:
                        yield SentEvent(kind, json.loads("\n".join(data)), id)
                    kind, data, id = "message", [], ""


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def _json(answer: http.client.HTTPResponse) -> Any:
    try:
        return json.loads(answer.read())
    except ValueError:
        raise ServerRefusal("It does not answer as this project's server does.", 0) from None


def _error_of(answer: http.client.HTTPResponse) -> Exception:
    text, code = answer.reason, None
    try:
        error = json.loads(answer.read())["error"]
        text, code = str(error["message"]), error["code"]
    except (ValueError, LookupError, TypeError):
        pass  # something else answers there
    if answer.status in _COME_AGAIN:
        told = answer.getheader("Retry-After", "")
        seconds = float(told) if told.isdigit() else 2.0
        leaving = code == "draining" or answer.status in (502, 504)
        return ServerBusy(text, seconds, leaving)
    return ServerRefusal(text, answer.status, code)
