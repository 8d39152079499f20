"""Names every request and logs how it was answered."""

import re
import time
from uuid import uuid4

from loguru import logger
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.server.images.links import PREFIX
from apps.server.metrics import Metrics

HEADER = b"x-request-id"
SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
OF_MACHINES = ("/healthz", "/readyz", "/metrics")  # asked for all day: logged for debugging alone
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # others count as one


class AccessLog:
    """ASGI middleware: a line in the log for each request, with the id that its answer has, too.

    The id is the request's own `x-request-id` if that is a plain word, else a new one; routes
    find it as `request.state.request_id`. The query is not logged, nor is any header, nor what of a
    picture's address lets whoever knows it see the picture.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = _id_of(scope)
        scope.setdefault("state", {})["request_id"] = name
        started, status, complete = time.monotonic(), 0, False

        async def answer(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(k, v) for k, v in message.get("headers", ()) if k.lower() != HEADER]
                message = {**message, "headers": [*headers, (HEADER, name.encode())]}
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            self._tell(scope, name, status, complete, time.monotonic() - started)

    def _tell(self, scope: Scope, name: str, status: int, complete: bool, seconds: float) -> None:
        method, path = scope["method"], scope["path"]
        self._metrics.answered(method if method in METHODS else "other", status)
        caller = scope["state"].get("caller", "")
        peer = (scope.get("client") or ("-",))[0]
        # Bytes that a terminal would obey are shown, not sent to it.
        shown = path.encode("unicode_escape").decode("ascii")
        if path.startswith(PREFIX):
            shown = f"{PREFIX}…"
        cut = "" if complete else " (cut off)"
        level = "DEBUG" if path in OF_MACHINES else "INFO"
        logger.log(
            level,
            f"{peer} {caller or '-'} {method} {shown} {status}{cut} {1000 * seconds:.1f} ms {name}",
        )


def _id_of(scope: Scope) -> str:
    for key, value in scope["headers"]:
        if key == HEADER:
            text = value.decode("latin-1")
            if SANE_ID.fullmatch(text):
                return str(text)
            break
    return f"req_{uuid4().hex}"
