"""The SQLite record of every task, lease and result: what makes a run resumable.

One row of `tasks` per output path ever asked for, found by `key` whatever its place in the
input; one row of `leases` per attempt. A lease is written before it is sent and a result
after its picture has its name, so a crash at any point is seen as an open lease.

WAL with synchronous=NORMAL survives the death of the process at any instruction. A power cut
may take the last commits and a torn WAL all since its last checkpoint; what they recorded is
found again, because a picture is synced before it is recorded and says what it is.
"""

import os
import sqlite3
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from core.fault_points import fault_point
from core.paths import is_text
from core.store.ledger_copy import LedgerCopy, copy_of_ledger
from core.store.ledger_entry import UPSERT, Entry, State, from_row, to_row
from core.store.ledger_file import FILE_NAME, LOCK_NAME, connect, in_our_words
from core.store.ledger_recovery import connect_or_recover, results_beyond
from core.store.outputs import make_folder
from core.store.replaced import recover_replaced
from core.store.run_lock import RunLock

__all__ = ["FILE_NAME", "Entry", "Ledger", "State"]

K = TypeVar("K", str, int)

_UNFINISHED = ("pending", "leased")
# A connection keeps the last 128 texts that it ran, compiled: 25 KB for one that names 100 keys.
# Of a text for each number of keys they would grow to megabytes.
_KEYS_AT_ONCE = (1, 10, 100)  # in a query
_READ_AT_ONCE = 500  # entries, while the ledger is held


class Ledger:
    """The record of one output folder, held by one process at a time.

    Every method raises StorageError if the disk refuses and LedgerError if the file is damaged.
    """

    def __init__(self, connection: sqlite3.Connection, lock: RunLock | None) -> None:
        self._db = connection
        self._lock = lock
        self._pid = os.getpid()
        self._newest_batch = 0  # that was begun since it was opened
        # Several threads plan and record, and SQLite crashes if one thread closes what another
        # reads. A signal handler that closes it interrupts its own thread: that may not wait.
        self._in_use = threading.RLock()

    @classmethod
    def open(cls, folder: Path) -> "Ledger":
        """Open, recover or create the ledger of `folder`, and lock it.

        Raises:
            LedgerError: in use by another run, another program's, or of a newer format.
            StorageError: the folder or file cannot be written.
        """
        make_folder(folder)
        lived_in = (folder / LOCK_NAME).exists()
        lock = RunLock(folder / LOCK_NAME)
        try:
            ledger = cls(connect_or_recover(folder / FILE_NAME), lock)
        except BaseException:
            lock.release()
            raise
        try:
            recover_replaced(folder)
            if lived_in:
                ledger._adopt(folder)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _adopt(self, folder: Path, sweeps: bool = True) -> None:
        """Record finished results that no entry speaks of.

        Args:
            sweeps: remove unfinished files of dead runs on the way.
        """
        found = list(results_beyond(folder, self._has_ended, sweeps))
        if found:
            now = time.time()
            with self._use(), self._transaction():
                # Before every batch of which the order is known.
                self._db.executemany(UPSERT, [to_row(e, 0, now) for e in found])

    def _has_ended(self, key: str) -> bool:
        """Whether a task is recorded as one that needs no result any more."""
        if not is_text(key):
            return False
        with self._use():
            row = self._db.execute("SELECT state FROM tasks WHERE key = ?", (key,)).fetchone()
            return row is not None and row["state"] not in _UNFINISHED

    @classmethod
    def look_at(cls, folder: Path) -> "tuple[Ledger, LedgerCopy]":
        """A ledger in memory with what that of a folder says; the folder is left as it is.

        Results that no entry speaks of count as recorded, as `open` has it.

        Raises:
            LedgerError, StorageError: see `core.store.ledger_copy.copy_of_ledger`.
        """
        copy = copy_of_ledger(folder)
        ledger = cls(copy.db, None)
        if copy.damage is not None or (folder / LOCK_NAME).exists():
            ledger._adopt(folder, sweeps=False)
        return ledger, copy

    @classmethod
    def in_memory(cls) -> "Ledger":
        """A ledger that lives as long as its process, for batches that need no resume."""
        return cls(connect(None), None)

    def close(self) -> None:
        """Close the file and give its folder free; only the process that opened it may do so."""
        if os.getpid() != self._pid:
            return
        with self._in_use:
            self._db.close()
        if self._lock:
            self._lock.release()

    @property
    def is_empty(self) -> bool:
        """No task was ever asked for."""
        with self._use():
            return self._db.execute("SELECT 1 FROM tasks LIMIT 1").fetchone() is None

    def entries(self) -> dict[str, Entry]:
        """All tasks ever asked for, by key."""
        with self._use():
            return {row["key"]: from_row(row) for row in self._db.execute("SELECT * FROM tasks")}

    def entries_of(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Entries of those `keys` that were ever asked for, without a look at any other task."""
        found: dict[str, Entry] = {}
        with self._use():
            for some, marks in _portions(keys):
                query = f"SELECT * FROM tasks WHERE key IN ({marks})"
                found |= {row["key"]: from_row(row) for row in self._db.execute(query, some)}
        return found

    def knows_any(self, keys: Sequence[str]) -> bool:
        """Whether a task of one of these `keys` was ever asked for."""
        with self._use():
            for some, marks in _portions(keys):
                query = f"SELECT 1 FROM tasks WHERE key IN ({marks}) LIMIT 1"
                if self._db.execute(query, some).fetchone() is not None:
                    return True
        return False

    def open_leases(self) -> list[str]:
        """Partial files of attempts that dead runs left behind, relative to the folder.

        None as soon as a batch has begun: what is open then is being worked on.
        """
        with self._use():
            if self._newest_batch:
                return []
            rows = self._db.execute("SELECT partial_path FROM leases WHERE ended IS NULL")
            return [row["partial_path"] for row in rows]

    def begin_batch(self, entries: Iterable[Entry]) -> int:
        """Record the plan of a batch, all or nothing.

        With the first batch since the ledger was opened, what dead runs left open is closed and
        is pending again. Later batches leave all others alone: these may be running.

        Returns:
            The number of the batch, by which everything is recorded that becomes of it.
        """
        with self._use():
            with self._transaction():
                [last] = self._db.execute("SELECT coalesce(max(batch), 0) FROM tasks").fetchone()
                batch = max(self._newest_batch, int(last)) + 1
                now = time.time()
                if not self._newest_batch:
                    self._close_dead_runs(now)
                # Inputs that named no output have no key of their own to be found by again. Their
                # failure was their whole story, in a batch that is still running, too.
                self._db.execute("DELETE FROM tasks WHERE output_path IS NULL")
                self._db.executemany(UPSERT, [to_row(e, batch, now) for e in entries])
            self._newest_batch = batch
            return batch

    def _close_dead_runs(self, now: float) -> None:
        self._db.execute(
            "UPDATE leases SET ended = ?, outcome = 'interrupted' WHERE ended IS NULL", (now,)
        )
        self._db.execute("UPDATE tasks SET state = 'pending' WHERE state = 'leased'")

    def add_to_batch(self, batch: int, entries: Iterable[Entry]) -> None:
        """Record more of the plan of a batch, all of it or nothing."""
        now = time.time()
        with self._use(), self._transaction():
            self._db.executemany(UPSERT, [to_row(e, batch, now) for e in entries])

    def end_batch(self, batch: int) -> None:
        """Note that a batch is over. In memory it is forgotten: nobody resumes it."""
        if self._lock is not None:
            return
        with self._use(), self._transaction():
            self._db.execute(
                "DELETE FROM leases WHERE key IN (SELECT key FROM tasks WHERE batch = ?)", (batch,)
            )
            self._db.execute("DELETE FROM tasks WHERE batch = ?", (batch,))

    def lease(self, lease_id: str, key: str, attempt: int, worker: str, partial: str) -> None:
        """Record a lease; call it before the lease is sent.

        Args:
            partial: the file that its worker writes, relative to the folder.
        """
        self.lease_all([(lease_id, key, attempt, worker, partial)])

    def lease_all(self, leases: Iterable[tuple[str, str, int, str, str]]) -> None:
        """Record leases in one commit, all or none; each as `lease` takes it."""
        now = time.time()
        with self._use(), self._transaction():
            for lease_id, key, attempt, worker, partial in leases:
                self._db.execute(
                    "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
                    (lease_id, key, attempt, worker, partial, now),
                )
                self._db.execute(
                    "UPDATE tasks SET state = 'leased', worker = ?, updated = ? WHERE key = ?",
                    (worker, now, key),
                )

    def end_lease(self, lease_id: str, outcome: str, entry: Entry, batch: int) -> None:
        """Close a lease, and bring its task to the state of `entry` in the same commit."""
        self.end_all([(lease_id, outcome, entry, batch)])

    def end_all(self, ends: Iterable[tuple[str, str, Entry, int]]) -> None:
        """Close leases in one commit, all or none; each as `end_lease` takes it."""
        now = time.time()
        with self._use(), self._transaction():
            for lease_id, outcome, entry, batch in ends:
                self._db.execute(
                    "UPDATE leases SET ended = ?, outcome = ? WHERE lease_id = ?",
                    (now, outcome, lease_id),
                )
                self._db.execute(UPSERT, to_row(entry, batch, now))

    def end_lease_alone(self, lease_id: str, outcome: str) -> None:
        """Close a lease of a task that another lease decides about."""
        with self._use():
            self._db.execute(
                "UPDATE leases SET ended = ?, outcome = ? WHERE lease_id = ?",
                (time.time(), outcome, lease_id),
            )

    def set_state(self, entry: Entry, batch: int) -> None:
        """Bring a task of a batch to the state of `entry`."""
        with self._use():
            self._db.execute(UPSERT, to_row(entry, batch, time.time()))

    def add_leases(self, leases: Iterable[Sequence[object]]) -> None:
        """Record attempts of another ledger that have ended: rows of its table of leases."""
        with self._use(), self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?)", leases
            )

    def forget(self, keys: Sequence[str]) -> None:
        """Remove tasks and their leases: as if they had never been asked for."""
        with self._use(), self._transaction():
            for some, marks in _portions(keys):
                self._db.execute(f"DELETE FROM leases WHERE key IN ({marks})", some)
                self._db.execute(f"DELETE FROM tasks WHERE key IN ({marks})", some)

    @property
    def has_finished(self) -> bool:
        """Some task is finished."""
        with self._use():
            query = "SELECT 1 FROM tasks WHERE state = 'done' LIMIT 1"
            return self._db.execute(query).fetchone() is not None

    def finished(self) -> Iterator[Entry]:
        """All finished tasks, in the order in which they were asked for."""
        return self._in_order("state = 'done'")

    def with_output(self) -> Iterator[Entry]:
        """All tasks that have a place for a result, in the order in which they were asked for."""
        return self._in_order("output_path IS NOT NULL")

    def entries_in(self, batch: int) -> Iterator[Entry]:
        """The tasks of which a batch was the last to ask for, in the order of its input."""
        return self._in_order("batch = ?", batch)

    def position_in(self, batch: int, key: str) -> int | None:
        """The place in a batch of the task that was recorded for an output; None if there is none.

        Another batch may have asked for the same since.
        """
        if not is_text(key):
            return None
        with self._use():
            query = "SELECT position FROM tasks WHERE key = ? AND batch = ?"
            row = self._db.execute(query, (key, batch)).fetchone()
            return None if row is None else int(row["position"])

    def _in_order(self, condition: str, *values: int) -> Iterator[Entry]:
        """Tasks as they are when their turn comes; only where they lie is kept in memory."""
        with self._use():
            query = f"SELECT rowid FROM tasks WHERE {condition} ORDER BY batch, position"
            places = array("q", (row[0] for row in self._db.execute(query, values)))
        for start in range(0, len(places), _READ_AT_ONCE):
            some = places[start : start + _READ_AT_ONCE]
            with self._use():
                found: dict[int, Entry] = {}
                for portion, marks in _portions(some):
                    query = f"SELECT rowid AS place, * FROM tasks WHERE rowid IN ({marks})"
                    for row in self._db.execute(query, portion):
                        found[row["place"]] = from_row(row)
            yield from (found[place] for place in some if place in found)

    @contextmanager
    def _use(self) -> Iterator[None]:
        with self._in_use, in_our_words():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            fault_point("main.before-commit")
            self._db.execute("COMMIT")
            fault_point("main.after-commit")
        except BaseException:
            # A refused write may have ended the transaction itself, and a refused COMMIT not.
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise


def _portions(keys: Sequence[K]) -> Iterator[tuple[Sequence[K], str]]:
    """Keys for one query after the other, each with the `?, ?, …` that stand for them.

    A portion that is smaller than its query names its last key again.
    """
    most = _KEYS_AT_ONCE[-1]
    for start in range(0, len(keys), most):
        some = list(keys[start : start + most])
        room = next(number for number in _KEYS_AT_ONCE if number >= len(some))
        yield some + some[-1:] * (room - len(some)), ", ".join("?" * room)
