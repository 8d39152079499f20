"""`/v1/jobs/{id}/events`: a job's progress as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html. Results are numbered in the order
in which they came, and the journal keeps these numbers: a client that comes back with the last
one gets what it missed, from this process or the next one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request

from apps.server.context import Caller, TheService
from apps.server.document import errors, stream
from apps.server.errors import bad_value
from apps.server.event_stream import COMMENT, KEEP_ALIVE, EventStream, sent_event
from apps.server.job_views import (
    JobView,
    JobViews,
    PreviewView,
    ResultView,
    StepView,
    has_changed,
    running_view,
)
from apps.server.leashes import Leashes
from apps.server.live_job import LiveJob, Running
from apps.server.records import StoredJob
from apps.server.service import Service

AT_ONCE = 200  # results that are read from the journal together
LOOK = 1.0  # seconds after which a place in the queue is looked up again
COMES_BACK = 2000  # milliseconds after which a browser that lost its connection asks again
MOST_DIGITS = 9
router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


async def _job(id: str, service: TheService, caller: Caller) -> StoredJob:
    return await service.find(id, caller)


async def _after(
    last_event_id: Annotated[
        str | None,
        Header(
            description="The number of the last event that came; 0: none.",
            json_schema_extra={"pattern": f"^[0-9]{{0,{MOST_DIGITS}}}$"},
        ),
    ] = None,
    after: Annotated[
        int | None, Query(ge=0, lt=10**MOST_DIGITS, description="As Last-Event-ID.")
    ] = None,
) -> int:
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit()) or (
            len(last_event_id) > MOST_DIGITS
        ):
            raise bad_value("Last-Event-ID", "Last-Event-ID: expected the `id` of an event.")
        return int(last_event_id)
    return after or 0


EVENTS = stream(job=JobView, step=StepView, preview=PreviewView, task=ResultView, end=JobView)


@router.get(
    "/{id}/events",
    response_class=EventStream,
    status_code=200,
    responses={200: {"content": EVENTS}, **errors(404)},
)
async def follow_job(
    request: Request,
    service: TheService,
    job: Annotated[StoredJob, Depends(_job)],
    after: Annotated[int, Depends(_after)],
) -> EventStream:
    """`job` (how it stands), `task` (a result; numbered), `step` (a task's progress), `end`; and
    `preview` (a small picture of what a task has come to), if the job asks for them.

    A stream without `end` was cut off: come back with the last number as Last-Event-ID.
    """
    views = JobViews(service, str(request.base_url))
    return EventStream(_followed(request.app.state.leashes, service, job, after, views))


async def _followed(
    leashes: Leashes, service: Service, job: StoredJob, place: int, views: JobViews
) -> AsyncGenerator[bytes, None]:
    with leashes.followed(job.id):
        async with aclosing(follow(service, job, place, views)) as events:
            async for event in events:
                yield event


async def follow(
    service: Service, job: StoredJob, place: int, views: JobViews
) -> AsyncGenerator[bytes, None]:
    """Events of a job from the result after `place` on, until it ends or the daemon does."""
    live = service.live(job.id)
    first = views.job(live.stored if live else job)
    yield sent_event("job", first, retry=COMES_BACK)
    if live is not None:
        async with aclosing(_of_live(live, place, views, first)) as events:
            async for event in events:
                yield event
    else:
        while results := await service.results_after(job, place, AT_ONCE):
            for one in results:
                place = one.order
                yield sent_event("task", views.result(job, one), id=place)
        yield sent_event("end", first)


async def _of_live(
    live: LiveJob, place: int, views: JobViews, told: JobView
) -> AsyncGenerator[bytes, None]:
    running: dict[str, Running] = {}
    told_at = said_at = time.monotonic()
    shown = 0
    while True:
        changed = live.next_change()
        for one in has_changed(live, running):
            yield sent_event("step", running_view(one))
        for preview in live.previews_after(shown):
            shown = preview.number
            if preview.task_id in live.running:
                data = views.preview(live.stored.id, preview)
                yield sent_event("preview", data)
        while place < len(live.results):
            place += 1
            result = views.result(live.stored, live.results[place - 1])
            yield sent_event("task", result, id=place)
        if live.ended:
            yield sent_event("end", views.job(live.stored))
            return
        if live.left:
            return
        now = time.monotonic()
        if live.stored.status != told["status"] or now - told_at >= LOOK:
            view = views.job(live.stored)
            if _news(view) != _news(told):
                yield sent_event("job", view)
            told, told_at = view, now
        try:
            await asyncio.wait_for(changed.wait(), LOOK)
            said_at = time.monotonic()
        except TimeoutError:
            if time.monotonic() - said_at >= KEEP_ALIVE:
                said_at = time.monotonic()
                yield COMMENT


def _news(view: JobView) -> tuple[Any, ...]:
    """What of a job is worth an event of its own."""
    names = ("status", "queue_position", "counts", "cancelling", "waiting_for")
    return tuple(view.get(name) for name in names)
