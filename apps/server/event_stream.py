"""Answers that are streams of server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
from collections.abc import AsyncGenerator, Callable, Mapping

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

COMMENT = b": keep-alive\n\n"
KEEP_ALIVE = 15.0  # seconds without news after which a stream says that it is still there


class EventStream(StreamingResponse):
    """Events as they come. Once the last one is sent, or the client has left, they are closed.

    A caller whose API key ends gets no event more: the stream ends with the next one, or with the
    next sign of life.

    FastAPI's own streams of events pass each of them through two queues and tasks, and report a
    client that left in the middle as an error.
    """

    def __init__(
        self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str] | None = None
    ) -> None:
        unbuffered = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(
            # Here and not of the class: FastAPI would say in its document that it is one text.
            events,
            headers={**unbuffered, **(headers or {})},
            media_type="text/event-stream",
        )
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body_iterator = self._while_let_in(scope.get("state", {}).get("lets_in"))
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()

    async def _while_let_in(
        self, lets_in: Callable[[], bool] | None
    ) -> AsyncGenerator[bytes, None]:
        async for event in self._events:
            if lets_in is not None and not lets_in():
                return
            yield event


def sent_event(
    name: str, data: Mapping[str, object], id: int | None = None, retry: int | None = None
) -> bytes:
    """One event.

    Args:
        id: by which a client says what it saw last.
        retry: milliseconds after which a client that lost its connection comes back.
    """
    text = json.dumps(data, separators=(",", ":"))
    lines = [f"event: {name}", f"data: {text}"]
    if id is not None:
        lines.append(f"id: {id}")
    if retry is not None:
        lines.append(f"retry: {retry}")
    return "\n".join([*lines, "", ""]).encode()
