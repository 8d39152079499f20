"""One try at one task, how it may end, and what the disk says to that."""

from dataclasses import dataclass
from typing import Literal

from core.errors import LedgerError, StorageError
from core.store.ledger_entry import Recordable

Refusal = StorageError | LedgerError
Outcome = Literal["again", "failed", "quarantined"]


@dataclass(frozen=True)
class Attempt:
    """One try at one task by one worker.

    Attributes:
        batch: the number that the ledger gave the task's batch.
        number: 1 for the first try.
        partial_path: where the worker writes; inside the output folder, beside the result.
        previews: how many previews it may write beside that.
    """

    lease_id: str
    batch: int
    admitted: Recordable
    number: int
    worker: str
    partial_path: str
    previews: int = 0


@dataclass(frozen=True)
class Ending:
    """How an attempt ended without a result, and what that means for its task.

    Attributes:
        cause: of this attempt's end, in a word: `crash`, `hung`, `out_of_memory`, `released`.
        outcome: of the task.
        error: what the task's record says, where the task has ended.
        elapsed: seconds.
        blame: why the task has no result, as `core.tasks.Result` says it in `cause`.
    """

    cause: str
    outcome: Outcome
    error: str | None = None
    elapsed: float = 0.0
    blame: str | None = None
