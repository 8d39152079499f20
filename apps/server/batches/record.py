"""A batch as it is remembered, and as callers see it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from typing_extensions import TypedDict

from apps.server.priorities import USUAL_OF_BATCHES

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
ENDED: frozenset[BatchStatus] = frozenset({"failed", "completed", "expired", "cancelled"})
OPEN: frozenset[BatchStatus] = frozenset({"validating", "in_progress"})  # it can be cancelled
WINDOW, WINDOW_SECONDS = "24h", 24 * 3600


class BatchProblem(TypedDict):
    """Why a batch failed as a whole."""

    code: str | None
    message: str
    param: str | None
    line: int | None


class BatchProblems(TypedDict):
    """What is wrong with a batch's file."""

    object: Literal["list"]
    data: list[BatchProblem]


class RequestCounts(TypedDict):
    """Requests of a batch: all, with their pictures, and without."""

    total: int
    completed: int
    failed: int


class BatchView(TypedDict):
    """A batch in the form of OpenAI's; times are Unix times."""

    id: str
    object: Literal["batch"]
    endpoint: str
    errors: BatchProblems | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


@dataclass(frozen=True)
class Batch:
    """All of a batch that its file holds.

    Attributes:
        number: its place in the order in which batches came.
        caller: id of the API key; nobody else sees it.
        address: of the daemon, as its caller wrote it, without a slash at its end.
        created: Unix time; so are `expires` and all of `times`.
        output_seconds: after which its files of results expire.
        times: when it came to be in a status, by status.
        problems: why it failed as a whole.
        total: lines of its file.
        completed: lines that were written to its file of results so far.
        failed: lines that were written to its file of errors so far.
        portion: number of the first portion whose lines are not written.
        output_bytes: of the file of results, as far as it counts; so does `error_bytes`.
        output_file: id in /v1/files; so is `error_file`. None while there is none.
        priority: of its jobs.
    """

    id: str
    number: int
    caller: str
    endpoint: str
    input_file: str
    metadata: Mapping[str, str] | None
    address: str
    created: int
    expires: int
    output_seconds: int | None
    status: BatchStatus = "validating"
    times: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[BatchProblem, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    portion: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    output_file: str | None = None
    error_file: str | None = None
    priority: int = USUAL_OF_BATCHES

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def written(self) -> int:
        """How many lines of its file have their line."""
        return self.completed + self.failed

    @property
    def ended(self) -> int:
        """Unix time of its end."""
        return self.times.get(self.status, self.created)

    def as_json(self) -> dict[str, Any]:
        """What `from_json` makes the batch of again."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Batch":
        return cls(**{**data, "problems": tuple(data["problems"])})

    def view(self, completed: int = 0, failed: int = 0) -> BatchView:
        """The batch in the form of OpenAI's.

        Args:
            completed: requests that are done, and not written yet.
            failed: those that have failed, and are not written yet.
        """
        errors: BatchProblems | None = None
        if self.problems:
            errors = {"object": "list", "data": list(self.problems)}
        counts: RequestCounts = {
            "total": self.total,
            "completed": self.completed + completed,
            "failed": self.failed + failed,
        }
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": errors,
            "input_file_id": self.input_file,
            "completion_window": WINDOW,
            "status": self.status,
            "output_file_id": self.output_file if self.has_ended else None,
            "error_file_id": self.error_file if self.has_ended else None,
            "created_at": self.created,
            "expires_at": self.expires,
            "in_progress_at": self.times.get("in_progress"),
            "finalizing_at": self.times.get("finalizing"),
            "completed_at": self.times.get("completed"),
            "failed_at": self.times.get("failed"),
            "expired_at": self.times.get("expired"),
            "cancelling_at": self.times.get("cancelling"),
            "cancelled_at": self.times.get("cancelled"),
            "request_counts": counts,
            "metadata": None if self.metadata is None else dict(self.metadata),
        }
