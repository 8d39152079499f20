"""`/v1/jobs`: tasks of any kind as one job, with progress, results and an early end."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from apps.server.context import Caller, MostPriority, TheService, by_socket
from apps.server.document import errors, files
from apps.server.errors import ApiError, not_found
from apps.server.idempotency import REPLAYED, IdempotencyKey, RequestKey
from apps.server.in_place import LorasInPlace, PicturesInPlace
from apps.server.job_views import JobView, JobViews, ResultView
from apps.server.old_jobs import JOBS
from apps.server.paging import Listing, Page, listed
from apps.server.priorities import allowed
from apps.server.public_results import other_than_the_file
from apps.server.records import PREVIEWS, JobStatus, NewJob, StoredJob, TaskResult
from apps.server.sent_files import SentFile
from apps.server.service import Service
from apps.server.task_requests import LoraNames, Pictures, TaskRequests, task_schemas
from core.messages import MOST_PREVIEWS
from core.remote.protocol import MOST_PRIORITY

MOST_PER_PAGE, MOST_RESULTS = 100, 1000
MOST_POSITION = 10**9
MEDIA_TYPES = {
    ".png": "image/png",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".json": "application/json",
}
FOREVER = "private, max-age=31536000, immutable"  # a result never changes
router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class JobRequest(BaseModel):
    """What is handed in.

    Attributes:
        tasks: fields of tasks that generate, edit or score, as `kind` says or the fields tell. A
            task that cannot be used fails alone.
        priority: higher is served first, whoever it belongs to; as high as the caller may ask for.
        previews: how many small pictures of each task are shown while it is worked on.
    """

    model_config = ConfigDict(extra="forbid")

    tasks: list[Any] = Field(
        min_length=1,
        description="Tasks: generate, edit or score.",
        json_schema_extra=lambda schema: schema.update(items={"anyOf": [*task_schemas()]}),
    )
    priority: int = Field(0, ge=-MOST_PRIORITY, le=MOST_PRIORITY, strict=True)
    previews: int = Field(0, ge=0, le=MOST_PREVIEWS, strict=True)


# Each dependency of a dependency costs FastAPI as much time as the journal needs for a job.


async def _requests(request: Request) -> TaskRequests:
    parts = request.app.state
    settings = parts.service.generator.settings
    pictures: Pictures = parts.inbox
    loras: LoraNames = parts.loras
    if await by_socket(request):
        pictures, loras = PicturesInPlace(pictures), LorasInPlace(loras)
    return TaskRequests(pictures, loras, settings.seed, settings.workers.picture_suffix)


async def _views(request: Request) -> JobViews:
    return JobViews(request.app.state.service, str(request.base_url))


Requests = Annotated[TaskRequests, Depends(_requests)]
Views = Annotated[JobViews, Depends(_views)]


@router.post(
    "",
    status_code=202,
    response_model=JobView,
    responses={
        200: {"description": "The job that came before with the same key.", "model": JobView},
        **errors(409, 429, 507),
    },
)
async def create_job(
    asked: JobRequest,
    service: TheService,
    caller: Caller,
    requests: Requests,
    views: Views,
    most_priority: MostPriority,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Accept a job; from then on it survives whatever comes."""
    return await accept(asked, service, caller, requests, views, most_priority, idempotency_key)


async def accept(
    asked: JobRequest,
    service: Service,
    caller: str,
    requests: TaskRequests,
    views: JobViews,
    most_priority: int,
    idempotency_key: str | None,
    source: str = JOBS,
    metadata: Mapping[str, Any] | None = None,
    accepted: Callable[[StoredJob], object] | None = None,
    picture_suffixes: Sequence[str] = (),
) -> JSONResponse:
    """Check and accept a job; 202, or 200 with the job that came before under its key.

    Args:
        most_priority: that the caller may ask for.
        source, metadata: see `apps.server.records.NewJob`.
        accepted: told of a new job before anybody else hears of it.
        picture_suffixes: see `TaskRequests.check`.
    """
    key = RequestKey.of(idempotency_key, asked.model_dump)
    known = await service.known(caller, key)
    if known is not None:
        return JSONResponse(views.job(known), 200, REPLAYED)
    service.check_size(len(asked.tasks))
    given = "priority" in asked.model_fields_set
    priority = allowed(most_priority, asked.priority if given else None)
    id = NewJob(caller, ()).id
    checked = await requests.check(caller, asked.tasks, f"{JOBS}/{id}", picture_suffixes)
    job = NewJob(
        caller,
        checked.tasks,
        priority,
        source,
        key=key,
        metadata={**(metadata or {}), **({PREVIEWS: asked.previews} if asked.previews else {})},
        refused=checked.refused,
        id=id,
    )
    with service.wanted.hold(id):  # until somebody else does
        stored, is_new = await service.submit(job)
        if is_new and accepted is not None:
            accepted(stored)
    if not is_new:
        return JSONResponse(views.job(stored), 200, REPLAYED)
    return JSONResponse(views.job(stored), 202, {"Location": f"/v1/jobs/{stored.id}"})


class ResultsPage(Listing[ResultView]):
    """Results of a job in the order of its tasks; `last_position` is the `after` of the next."""

    last_position: int | None
    has_more: bool


@router.get("", responses=errors(404))
async def list_jobs(
    service: TheService,
    caller: Caller,
    views: Views,
    limit: Annotated[int, Query(ge=1, le=MOST_PER_PAGE)] = 20,
    after: Annotated[
        str | None, Query(description="Id of the last job of the page before.")
    ] = None,
    status: JobStatus | None = None,
) -> Page[JobView]:
    """The caller's jobs, newest first."""
    before = None if after is None else (await service.find(after, caller)).number
    found = await service.jobs(caller, before, limit + 1, status=status)
    page = [views.job(job) for job in found[:limit]]
    return listed(page, len(found) > limit)


@router.get("/{id}", responses=errors(404))
async def read_job(id: str, service: TheService, caller: Caller, views: Views) -> JobView:
    """How a job stands, its place in the queue and its expected end."""
    return views.job(await service.find(id, caller))


@router.delete("/{id}", responses=errors(404, 507))
async def cancel_job(id: str, service: TheService, caller: Caller, views: Views) -> JobView:
    """Start no more of a job's tasks. Those that run are finished, and results are kept."""
    return views.job(await service.cancel(await service.find(id, caller)))


@router.get("/{id}/results", responses=errors(404))
async def list_job_results(
    id: str,
    service: TheService,
    caller: Caller,
    views: Views,
    limit: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 100,
    after: Annotated[
        int, Query(ge=-1, le=MOST_POSITION, description="Position of the last one before.")
    ] = -1,
    success: Annotated[bool | None, Query(description="Only those that ended so.")] = None,
) -> ResultsPage:
    """Results in the order of the tasks, of those that have one yet."""
    job = await service.find(id, caller)
    found = await service.results(job, after + 1, limit + 1, success)
    page = found[:limit]
    return {
        "object": "list",
        "data": [views.result(job, one) for one in page],
        "last_position": page[-1].position if page else None,
        "has_more": len(found) > limit,
    }


@router.get("/{id}/results/{position}", responses=errors(404))
async def read_job_result(
    id: str, position: int, service: TheService, caller: Caller, views: Views
) -> ResultView:
    """The result of one task."""
    job = await service.find(id, caller)
    return views.result(job, await result_of(service, id, position, caller))


@router.get(
    "/{id}/results/{position}/content",
    response_class=FileResponse,
    responses={**files(*MEDIA_TYPES.values()), **errors(404, 410)},
)
async def read_job_result_content(
    id: str, position: int, service: TheService, caller: Caller
) -> Response:
    """The picture or the verdict of one task."""
    one = await result_of(service, id, position, caller)
    file = result_file(service, id, one)
    kind = MEDIA_TYPES.get(file.suffix, "application/octet-stream")
    headers = {"Cache-Control": FOREVER}
    try:
        data = await asyncio.to_thread(other_than_the_file, file)
    except FileNotFoundError:  # since it was looked for
        raise _removed(id, one) from None
    if data is None:
        return SentFile(file, media_type=kind, headers=headers)
    return Response(data, media_type=kind, headers=headers)


def result_file(service: Service, id: str, one: TaskResult) -> Path:
    """The picture or the verdict of a task of a job.

    Raises:
        ApiError: 404: it has none; 410: it was removed.
    """
    path = one.result["output_path"]
    if not one.result["success"] or not path:
        raise not_found(f"Task {one.position} of {id} has no result to show.", "result_not_found")
    file = service.folder / JOBS / id / Path(str(path)).name
    if not file.is_file():
        raise _removed(id, one)
    return file


def _removed(id: str, one: TaskResult) -> ApiError:
    return ApiError(410, f"The result of task {one.position} of {id} was removed.", "result_gone")


async def result_of(service: Service, id: str, position: int, caller: str) -> TaskResult:
    """The result of one task of a caller's job.

    Raises:
        ApiError: 404: there is no such job or task, or it has no result yet.
    """
    job = await service.find(id, caller)
    if 0 <= position < job.total:
        found = await service.results(job, position, 1)
        if found and found[0].position == position:
            return found[0]
        raise not_found(f"Task {position} of {id} has no result yet.", "result_not_found")
    raise not_found(f"{id} has no task {position}.", "result_not_found")
