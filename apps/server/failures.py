"""`/v1/failures`: what failed, equal failures of a job together."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from typing_extensions import TypedDict

from apps.server.context import Caller, TheService
from apps.server.job_views import ResultWithTask
from apps.server.jobs import Views
from apps.server.records import StoredJob, TaskResult

MOST_READ = 1000  # failures, the newest
MOST_GROUPS = 200
router = APIRouter(prefix="/v1/failures", tags=["jobs"])
# Where a task stands in its request makes its failure no other one.
_OWN_PLACE = re.compile(r"^tasks\[\d+\]\.")

Failure = tuple[StoredJob, TaskResult, dict[str, Any]]


class FailureGroup(TypedDict):
    """Failures of one job that have one reason.

    Attributes:
        job: their id begins with it: `job/position`.
        count: how many they are.
        positions: of their tasks in the job, in order.
        first: the one that came first.
    """

    object: Literal["failures"]
    job: str
    count: int
    positions: list[int]
    first: ResultWithTask


class FailureList(TypedDict):
    """Groups, the newest first.

    Attributes:
        has_more: there are older failures, in these groups or in others.
    """

    object: Literal["list"]
    data: list[FailureGroup]
    has_more: bool


@router.get("")
async def list_failures(
    service: TheService,
    caller: Caller,
    views: Views,
    limit: Annotated[int, Query(ge=1, le=MOST_GROUPS, description="Groups.")] = 50,
) -> FailureList:
    """The newest 1,000 failures; those of a job that have one reason are one group."""
    found = await service.results_of(caller, limit=MOST_READ + 1, outcome="failed")
    groups = grouped(found[:MOST_READ])
    return {
        "object": "list",
        "data": [_view(views, group) for group in groups[:limit]],
        "has_more": len(found) > MOST_READ or len(groups) > limit,
    }


def grouped(failures: Sequence[Failure]) -> list[list[Failure]]:
    """Equal failures of a job together.

    Args:
        failures: the newest first; so are the groups then, and what each of them holds.
    """
    groups: dict[tuple[object, ...], list[Failure]] = {}
    for failure in failures:
        job, one, _ = failure
        reason = _OWN_PLACE.sub("", str(one.result["error"]))
        groups.setdefault((job.number, one.result.get("cause"), reason), []).append(failure)
    return list(groups.values())


def _view(views: Views, group: Sequence[Failure]) -> FailureGroup:
    first = group[-1]
    return {
        "object": "failures",
        "job": first[0].id,
        "count": len(group),
        "positions": sorted(one.position for _, one, _ in group),
        "first": views.result_with_task(*first),
    }
