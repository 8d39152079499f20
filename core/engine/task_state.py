"""The fate of one task of a job so far, and the attempts at it that are out."""

from dataclasses import dataclass

from core.engine.recorder import Attempt, Recorder
from core.engine.retry import FRESH, History
from core.intake.admission import Admitted
from core.messages import Lease

_NOBODY: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)
class TaskState:
    """A task without a result.

    Attributes:
        attempts: leases given for it in this run.
        avoid: workers that should rather not run it again.
        out: attempts that workers have: two if it runs twice.
        copied: it has been given to a second worker; that is done once.
        recording: calls of the recorder about it that have not been answered.
    """

    admitted: Admitted
    attempts: int = 0
    history: History = FRESH
    avoid: frozenset[str] = _NOBODY
    out: "tuple[ActiveAttempt, ...]" = ()
    copied: bool = False
    recording: int = 0

    def without(self, ended: "ActiveAttempt") -> None:
        """An attempt is not out any more."""
        self.out = tuple(active for active in self.out if active is not ended)


@dataclass(slots=True, eq=False)
class ActiveAttempt:
    """One attempt that a worker has, or is about to have.

    Attributes:
        job: number of the job that it belongs to.
        recorder: of that job.
        alone: its worker gets nothing beside it, because its task is suspected.
        sent: the worker has been sent it.
        thrown_away: what it brings does not count any more.
    """

    job: int
    recorder: Recorder
    task: TaskState
    attempt: Attempt
    lease: Lease
    alone: bool = False
    sent: bool = False
    thrown_away: bool = False

    @property
    def lease_id(self) -> str:
        return self.attempt.lease_id

    @property
    def admitted(self) -> Admitted:
        return self.task.admitted
