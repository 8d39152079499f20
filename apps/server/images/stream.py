"""Pictures as server-sent events, each as soon as it is there."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from apps.server.errors import ApiError
from apps.server.event_stream import COMMENT, EventStream, sent_event
from apps.server.images.answers import Answer
from apps.server.live_job import Preview
from apps.server.records import TaskResult

_abandoning: set[asyncio.Future[Any]] = set()


class PictureStream(EventStream):
    """Events of pictures, and what is to be done after the last one, or once the client has left.

    Args:
        after: runs by itself, whatever became of the connection.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        after: Callable[[], Coroutine[Any, Any, None]],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(events, headers)
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # A task of its own: where the client has left, nothing more is awaited here.
            task = asyncio.ensure_future(self._after())
            _abandoning.add(task)
            task.add_done_callback(_abandoning.discard)


async def events(
    pictures: AsyncIterator[TaskResult | Preview | None], answer: Answer
) -> AsyncGenerator[bytes, None]:
    """An event for each picture and each preview of one; an error is the last one.

    Args:
        pictures: results are of pictures that are there; None where nothing came for a while.
    """
    previews: Counter[str] = Counter()
    try:
        async for picture in pictures:
            if picture is None:
                yield COMMENT
            elif isinstance(picture, Preview):
                index = previews[picture.task_id]
                previews[picture.task_id] += 1
                yield await asyncio.to_thread(answer.partial, picture, index)
            else:
                yield await asyncio.to_thread(answer.completed, picture)
    except ApiError as error:
        yield sent_event("error", {"type": "error", **error.envelope})
