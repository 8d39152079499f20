"""What the daemon remembers of jobs: small frozen dataclasses, as the journal gives them back."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

JobStatus = Literal["queued", "running", "completed", "cancelled", "failed"]
ENDED: frozenset[JobStatus] = frozenset({"completed", "cancelled", "failed"})


@dataclass(frozen=True)
class NewJob:
    """A job as it is handed in, checked by whoever read the request.

    Attributes:
        caller: id of the API key, or who else it belongs to; nobody else sees it.
        tasks: for the engine, fields by name with `kind`; seeds and output paths included.
        source: the part of the API that it came by, such as `jobs` or `images`.
        idempotency_key: a second job of the caller with the same key is the first one.
        request_hash: of what was asked for; the same key with another request is an error.
        metadata: anything JSON of the part that it came by.
    """

    caller: str
    tasks: tuple[dict[str, Any], ...]
    priority: int = 0
    source: str = "jobs"
    idempotency_key: str | None = None
    request_hash: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", new_id("job"))


@dataclass(frozen=True)
class StoredJob:
    """A job as it stands in the journal, without its tasks.

    Attributes:
        number: its place in the order of acceptance.
        created: Unix time; so is `ended`, once it has.
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
    ended: float | None
    total: int
    succeeded: int
    failed: int
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class TaskResult:
    """What became of one task of a job.

    Attributes:
        position: its place in the job, from 0.
        order: how many results of the job came before it, and itself: 1 for the first.
        result: as `core.tasks.Result.as_dict`.
    """

    position: int
    order: int
    result: Mapping[str, Any]


def new_id(prefix: str) -> str:
    """A name that nobody can guess, as `job_3f2a…`."""
    return f"{prefix}_{secrets.token_hex(12)}"
