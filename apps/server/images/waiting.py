"""The pictures of a job, as they come, for the client that waits for them."""

import asyncio
from collections.abc import AsyncIterator

from apps.openai_images.outcome import failure
from apps.server.errors import leaving
from apps.server.event_stream import KEEP_ALIVE
from apps.server.live_job import LiveJob, Preview
from apps.server.public_results import hidden_folders
from apps.server.records import TaskResult
from apps.server.service import Service


async def pictures(service: Service, live: LiveJob) -> AsyncIterator[TaskResult | Preview | None]:
    """Previews and results of a job as they come; None where nothing has come for a while.

    Raises:
        ApiError: a picture cannot be drawn, or not by this process, which is about to end.
    """
    given = seen = 0  # results; the number of the last preview
    shown: dict[str, int] = {}  # the step of the newest preview, by task; a retry shows none again
    while given < live.stored.total:
        if previews := live.previews_after(seen):
            seen = previews[0].number
            if previews[0].step > shown.get(previews[0].task_id, 0):
                shown[previews[0].task_id] = previews[0].step
                yield previews[0]
        elif given < len(live.results):
            result = live.results[given]
            if not result.result["success"]:
                raise failure(result.result, hidden_folders(service))
            given += 1
            yield result
        elif live.left:
            raise leaving("The server stops before this picture is drawn. Ask again later.", 5)
        else:
            try:
                await asyncio.wait_for(live.change(), KEEP_ALIVE)
            except TimeoutError:
                yield None


async def all_drawn(service: Service, live: LiveJob) -> None:
    """Wait until every picture of a job is there.

    Raises:
        ApiError: see `pictures`.
    """
    async for _ in pictures(service, live):
        pass


def wanted_no_more(live: LiveJob, comes_back: bool) -> bool:
    """Whether some of a job is still to be done that nobody will see.

    Args:
        comes_back: its client has a key by which it may ask for the answer again.
    """
    failed = any(not one.result["success"] for one in live.results)  # and so the request
    return len(live.results) < live.stored.total and (failed or not comes_back)
