"""`/v1/results`: what became of the tasks of all jobs of a caller; small copies of pictures."""

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import FileResponse

from apps.server.context import Caller, TheService
from apps.server.document import content, errors, files
from apps.server.errors import ApiError, bad_value, not_found
from apps.server.job_views import ResultWithTask
from apps.server.jobs import FOREVER, Views, result_file, result_of
from apps.server.paging import Page, listed
from apps.server.records import Outcome
from apps.server.sent_files import SentFile
from apps.server.service import Service
from apps.server.sources import source_picture
from apps.server.state import kept
from apps.server.thumbnails import MEDIA_TYPE, SIDE, SOURCE_SIDE, Thumbnails

MOST_PER_PAGE = 200
MOST_WORDS = 200  # characters
_ID = re.compile(r"(job_[0-9a-z]{1,64})/(\d{1,9})", re.ASCII)
router = APIRouter(prefix="/v1", tags=["jobs"])


@router.get("/results", responses=errors(404))
async def list_results(
    service: TheService,
    caller: Caller,
    views: Views,
    limit: Annotated[int, Query(ge=1, le=MOST_PER_PAGE)] = 50,
    after: Annotated[
        str | None,
        Query(
            description="Id of the last result of the page before.",
            json_schema_extra={"pattern": f"^{_ID.pattern}$"},
        ),
    ] = None,
    outcome: Annotated[Outcome | None, Query(description="Only those that ended so.")] = None,
    kind: Literal["generate", "edit", "score"] | None = None,
    words: Annotated[
        str | None,
        Query(max_length=MOST_WORDS, description="Text in the prompt, in either case."),
    ] = None,
) -> Page[ResultWithTask]:
    """Results with what was asked for: those of the newest job first, in each the newest first."""
    before = None if after is None else await _place(after, service, caller)
    found = await service.results_of(caller, before, limit + 1, outcome, kind, words)
    page = [views.result_with_task(*one) for one in found[:limit]]
    return listed(page, len(found) > limit)


async def _place(id: str, service: Service, caller: str) -> tuple[int, int]:
    named = _ID.fullmatch(id)
    if named is None:
        raise bad_value("after", "after: expected the `id` of a result, such as job_…/0.")
    job = await service.find(named[1], caller)
    return job.number, (await result_of(service, job.id, int(named[2]), caller)).order


TheThumbnails = Annotated[Thumbnails, Depends(kept("thumbnails"))]


@router.get(
    "/jobs/{id}/results/{position}/thumbnail",
    response_class=FileResponse,
    responses={**files(MEDIA_TYPE), **errors(404, 410, 507)},
)
async def read_thumbnail(
    id: str, position: int, thumbnails: TheThumbnails, service: TheService, caller: Caller
) -> FileResponse:
    """A copy of a picture as WebP, of at most 384 pixels a side."""
    one = await result_of(service, id, position, caller)
    if one.result["kind"] == "score":
        raise not_found(f"Task {position} of {id} has no picture.", "result_not_found")
    file = result_file(service, id, one)
    try:
        small = await thumbnails.of(id, str(position), file, SIDE)
    except FileNotFoundError:
        message = f"The result of task {position} of {id} was removed."
        raise ApiError(410, message, "result_gone") from None
    return SentFile(small, media_type=MEDIA_TYPE, headers={"Cache-Control": FOREVER})


@router.get(
    "/jobs/{id}/results/{position}/preview",
    response_class=Response,
    responses={200: content("image/jpeg"), **errors(404)},
)
async def read_preview(
    id: str,
    position: int,
    service: TheService,
    caller: Caller,
    number: Annotated[
        int | None, Query(description="Of which preview somebody heard; the newest one is sent.")
    ] = None,
) -> Response:
    """What a running task's picture has come to, as JPEG of at most 384 pixels a side.

    Only of jobs that ask for `previews`, and until the task has its result.
    """
    job = await service.find(id, caller)
    live = service.live(job.id)
    running = live.running.values() if live else ()
    for one in running:
        if live and one.outline.position == position and (shown := live.newest_preview(one)):
            headers = {"Cache-Control": "no-store"}
            return Response(shown.content, media_type="image/jpeg", headers=headers)
    message = f"Task {position} of {id} has no preview now."
    raise not_found(message, "preview_not_found")


@router.get(
    "/jobs/{id}/results/{position}/sources/{place}",
    response_class=FileResponse,
    responses={**files(MEDIA_TYPE), **errors(404, 507)},
)
async def read_source(
    id: str,
    position: int,
    place: int,
    thumbnails: TheThumbnails,
    service: TheService,
    caller: Caller,
) -> FileResponse:
    """A picture that a task reads, as WebP of at most 1024 pixels a side.

    `ID/POSITION/sources/PLACE` names it in another task of the same caller.
    """
    job = await service.find(id, caller)
    none = not_found(f"Task {position} of {id} reads no such picture.", "source_not_found")
    if not (0 <= position < job.total and place >= 0):
        raise none
    file = await source_picture(service, job, position, place)
    if file is None:
        raise none
    try:
        name = f"{position}-source-{place}"
        small = await thumbnails.of(id, name, file, SOURCE_SIDE)
    except FileNotFoundError:
        raise none from None
    return SentFile(small, media_type=MEDIA_TYPE, headers={"Cache-Control": FOREVER})
