"""A folder's record in the thread that asks for it: the real ledger, without files of pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.engine.recorder import Attempt, Ending, Then
from core.messages import Done
from core.store.folder_recorder import MOST_AT_ONCE, entry_of
from core.store.ledger import Ledger
from core.store.ledger_entry import Entry, Recordable, entry_for
from core.store.outputs import partial_of
from core.tasks import Result, Status


class Record:
    """Keeps what is asked for, and writes it in one commit for all, as the folder's recorder does.

    Attributes:
        commits, rows: written so far.
    """

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self.folder = folder
        self.batch = ledger.begin_batch([])
        self.commits = self.rows = 0
        self._ledger = ledger
        self._leases: list[tuple[Attempt, Then]] = []
        self._ends: list[tuple[tuple[str, str, Entry, int], Then]] = []

    @property
    def is_due(self) -> bool:
        """So much waits that it fills a commit."""
        return max(len(self._leases), len(self._ends)) >= MOST_AT_ONCE

    def add(self, entries: Sequence[Entry]) -> None:
        """Record tasks that are to be done."""
        self._ledger.add_to_batch(self.batch, entries)
        self.commits += 1
        self.rows += len(entries)

    def write(self) -> None:
        """Write what waits: leases first."""
        leases, self._leases = self._leases, []
        if leases:
            self._ledger.lease_all(
                (a.lease_id, a.admitted.output.key, a.number, a.worker, a.partial_path)
                for a, _ in leases
            )
            self.commits += 1
            self.rows += len(leases)
            self._answer([then for _, then in leases])
        ends, self._ends = self._ends, []
        if ends:
            self._ledger.end_all(end for end, _ in ends)
            self.commits += 1
            self._answer([then for _, then in ends])

    @staticmethod
    def _answer(waiting: Sequence[Then]) -> None:
        for then in waiting:
            then(None)

    # -- as the engine sees it -----------------------------------------------

    def partial_path(self, admitted: Recordable, lease_id: str) -> str:
        return partial_of(admitted.output, lease_id)

    def begin(self, attempt: Attempt, then: Then) -> None:
        self._leases.append((attempt, then))

    def keep(self, attempt: Attempt, done: Done, then: Then) -> None:
        self._ends.append(((attempt.lease_id, "done", entry_of(attempt, done), self.batch), then))

    def end(self, attempt: Attempt, ending: Ending, then: Then) -> None:
        state = "pending" if ending.outcome == "again" else ending.outcome
        entry = entry_for(attempt.admitted, state, worker=attempt.worker, error=ending.error)
        self._ends.append(((attempt.lease_id, ending.cause, entry, self.batch), then))

    def end_lease_alone(self, attempt: Attempt, cause: str) -> None:
        self._ledger.end_lease_alone(attempt.lease_id, cause)

    def fail(self, attempt: Attempt, error: str) -> None:
        raise AssertionError(error)  # no disk refuses here

    def discard(self, attempt: Attempt) -> None:
        """Remove nothing: there is no file."""

    def note(self, result: Result) -> None:
        """Do nothing: there is no table."""

    def finish(self, results: Sequence[Result], ended: Mapping[Status, int], then: Then) -> None:
        then(None)
