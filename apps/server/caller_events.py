"""`/v1/events`: what happens to all jobs of a caller, as server-sent events.

It begins with the moment at which it is opened and repeats nothing: read `/v1/jobs` and
`/v1/results` once it is open, and again after an event `missed` or a new connection.
`/v1/jobs/{id}/events` is the stream of one job from its beginning.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Literal

from fastapi import APIRouter, Request
from typing_extensions import TypedDict

from apps.server.context import Caller, TheService
from apps.server.document import stream
from apps.server.event_stream import COMMENT, KEEP_ALIVE, EventStream, sent_event
from apps.server.events import COMES_BACK
from apps.server.feed import Happening, JobChanged, PreviewShown, StepTold
from apps.server.job_views import (
    JobView,
    JobViews,
    PreviewView,
    ResultWithTask,
    StepView,
    running_view,
)
from apps.server.service import Service

PAUSE = 0.05  # seconds in which what happens is gathered; of many steps the last is told
router = APIRouter(prefix="/v1/events", tags=["jobs"])


class StepOfJob(StepView):
    """A running task of any job."""

    job: str


class StreamState(TypedDict):
    """Says something of the stream itself."""

    object: Literal["events"]


EVENTS = stream(
    open=StreamState,
    job=JobView,
    step=StepOfJob,
    preview=PreviewView,
    task=ResultWithTask,
    missed=StreamState,
)


@router.get("", response_class=EventStream, status_code=200, responses={200: {"content": EVENTS}})
async def follow_all_jobs(request: Request, service: TheService, caller: Caller) -> EventStream:
    """`open`, `job` (it came, began, ended), `step`, `preview`, `task` (a result), `missed`."""
    return EventStream(_watched(service, caller, JobViews(service, str(request.base_url))))


async def _watched(service: Service, caller: str, views: JobViews) -> AsyncGenerator[bytes, None]:
    with service.feed.watch(caller) as watcher:
        yield sent_event("open", {"object": "events"}, retry=COMES_BACK)
        while not watcher.closed:
            try:
                taken = await asyncio.wait_for(watcher.take(), KEEP_ALIVE)
            except TimeoutError:
                yield COMMENT
                continue
            for happening in _newest(taken):
                yield await _told(happening, service, views)
            if watcher.missed:
                watcher.missed = False
                yield sent_event("missed", {"object": "events"})
            await asyncio.sleep(PAUSE)


def _newest(happenings: list[Happening]) -> list[Happening]:
    """All but steps and previews of tasks, and states of jobs, that newer ones have made old."""
    last = {_subject(happening): place for place, happening in enumerate(happenings)}
    return [h for place, h in enumerate(happenings) if last[_subject(h)] == place]


def _subject(happening: Happening) -> tuple[object, ...]:
    if isinstance(happening, JobChanged):
        return "job", happening.job.id
    if isinstance(happening, StepTold):
        return "step", happening.job, happening.running.task_id
    if isinstance(happening, PreviewShown):
        return "preview", happening.job, happening.preview.task_id
    return "task", happening.job.id, happening.result.position


async def _told(happening: Happening, service: Service, views: JobViews) -> bytes:
    if isinstance(happening, JobChanged):
        live = service.live(happening.job.id)
        return sent_event("job", views.job(live.stored if live else happening.job))
    if isinstance(happening, StepTold):
        step: StepOfJob = {"job": happening.job, **running_view(happening.running)}
        return sent_event("step", step)
    if isinstance(happening, PreviewShown):
        data = views.preview(happening.job, happening.preview)
        return sent_event("preview", data)
    job, result = happening.job, happening.result
    task = await service.task(job, result.position) or {}
    return sent_event("task", views.result_with_task(job, result, task))
