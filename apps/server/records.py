"""What the daemon remembers of jobs: small frozen dataclasses, as the journal gives them back."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from apps.server.estimates import Share
from apps.server.idempotency import NO_KEY, RequestKey
from core.tasks import TASKS, Result

JobStatus = Literal["queued", "running", "completed", "cancelled", "failed"]
PREVIEWS = "previews"  # in a job's metadata: how many are wanted of each of its pictures, 0 to 3
Outcome = Literal["done", "failed", "cancelled"]
"""How a task ended."""
ENDED: frozenset[JobStatus] = frozenset({"completed", "cancelled", "failed"})


@dataclass(frozen=True)
class NewJob:
    """A job as it is handed in, checked by whoever read the request.

    Attributes:
        caller: id of the API key, or who else it belongs to; nobody else sees it.
        tasks: for the engine, fields by name with `kind`; seeds and output paths included.
        refused: why tasks are not to be tried, by position; they fail alone.
        source: the part of the API that it came by, such as `jobs` or `images`.
        key: a second job of the caller with the same key is the first one; with another request
            it is an error.
        metadata: anything JSON of the part that it came by; the journal adds what the job is about
            (see `apps.server.outlines`).
    """

    caller: str
    tasks: tuple[dict[str, Any], ...]
    priority: int = 0
    source: str = "jobs"
    key: RequestKey = NO_KEY
    metadata: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", new_id("job"))


@dataclass(frozen=True)
class StoredJob:
    """A job as it stands in the journal, without its tasks.

    Attributes:
        number: its place in the order of acceptance.
        created: Unix time of its acceptance.
        started: Unix time at which the first task was given to a worker; None if none was, or if
            no result has come since then.
        ended: Unix time; None while a task has no result.
        total: how many tasks it has.
        succeeded: tasks that ended well so far.
        failed: tasks that ended otherwise so far.
    """

    number: int
    id: str
    caller: str
    priority: int
    source: str
    status: JobStatus
    created: float
    started: float | None
    ended: float | None
    total: int
    succeeded: int
    failed: int
    metadata: Mapping[str, Any]

    @property
    def has_ended(self) -> bool:
        return self.ended is not None


@dataclass(frozen=True)
class TaskResult:
    """What became of one task of a job.

    Attributes:
        position: its place in the job, from 0.
        order: how many results of the job came before it, and itself: 1 for the first.
        result: as `core.tasks.Result.as_dict`, and the `kind` of its task.
    """

    position: int
    order: int
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Settled:
    """A job after results of it were recorded, and those of them that it had not before."""

    job: StoredJob
    results: list[TaskResult]


def status_at_end(succeeded: int, failed: int, cancelled: bool) -> JobStatus:
    """How a job ended of which every task has a result: failed only if nothing succeeded."""
    if cancelled:
        return "cancelled"
    return "completed" if succeeded or not failed else "failed"


def refused_result(position: int, task: Mapping[str, Any], error: str) -> dict[str, Any]:
    """The record of a task that was not tried because of what it asks for."""
    result = Result(position, task_name(task, position), "failed", None, error=error)
    return record_of(result, position, kind_of(task))


def record_of(result: Result, position: int, kind: str) -> dict[str, Any]:
    """What the journal keeps of a result."""
    return {**result.as_dict(), "position": position, "kind": kind}


def kind_of(task: Mapping[str, Any]) -> str:
    """The kind of a task of a job: generate, edit or score."""
    kind = str(task.get("kind", "generate"))
    return TASKS[kind].role if kind in TASKS else kind


def task_name(task: Mapping[str, Any], position: int) -> str:
    """What a task is called in events and results; within its job nothing else is."""
    return str(task.get("task_id") or position)


def owner_of(job: NewJob | StoredJob) -> str:
    """Who shares the devices with others: a caller, or one command of the machine's own user.

    Each has a part of the devices, and so each may have so many tasks waiting for it.
    """
    command = job.metadata.get("owner")
    return f"{job.caller}/{command}" if command else job.caller


def share_of(job: StoredJob) -> Share:
    """By what a job shares the devices with others."""
    return job.priority, owner_of(job)


def new_id(prefix: str) -> str:
    """A name that nobody can guess, as `job_3f2a…`."""
    return f"{prefix}_{secrets.token_hex(12)}"
