"""The SQLite record of every task, lease and result: what makes a run resumable.

One row of `tasks` per output path ever asked for, found by `key` whatever its place in the
input; one row of `leases` per attempt. A lease is written before it is sent and a result
after its picture has its name, so a crash at any point is seen as an open lease.

WAL with synchronous=NORMAL survives the death of the process at any instruction; a power
cut may take the last commits, whose tasks then run again.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.errors import LedgerError, StorageError
from core.fault_points import fault_point
from core.outputs import storage_error
from core.run_lock import RunLock

FILE_NAME = "ledger.sqlite"
APPLICATION_ID = 0x6D676967  # "mgig": tells our ledgers from other SQLite files
SCHEMA_VERSION = 1

State = Literal["pending", "leased", "done", "failed", "quarantined"]

_SCHEMA = """
CREATE TABLE tasks (
    key TEXT PRIMARY KEY,
    batch INTEGER NOT NULL,        -- the newest batch that asked for it
    position INTEGER NOT NULL,     -- its place in that batch's input
    task_id TEXT NOT NULL,
    output_path TEXT,
    fingerprint TEXT,
    task TEXT NOT NULL,            -- JSON
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'done', 'failed', 'quarantined')),
    worker TEXT,
    error TEXT,
    elapsed REAL NOT NULL DEFAULT 0,
    size INTEGER,                  -- bytes of the picture
    sha256 TEXT,
    used TEXT NOT NULL DEFAULT '{}',  -- JSON: the settings that the model really took
    updated REAL NOT NULL          -- Unix time
);
CREATE INDEX tasks_by_place ON tasks (batch, position);
CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    partial_path TEXT NOT NULL,
    given REAL NOT NULL,
    ended REAL,
    outcome TEXT
);
CREATE INDEX open_leases ON leases (key) WHERE ended IS NULL;
"""


@dataclass(frozen=True)
class Entry:
    """What the ledger keeps of one task."""

    key: str
    position: int
    task_id: str
    output_path: str | None
    fingerprint: str | None
    state: State
    task: dict[str, Any] = field(default_factory=dict)
    worker: str | None = None
    error: str | None = None
    elapsed: float = 0.0
    size: int | None = None
    sha256: str | None = None
    used: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """The record of one output folder, held by one process at a time.

    Every method raises StorageError if the disk refuses and LedgerError if the file is damaged.
    """

    def __init__(self, connection: sqlite3.Connection, lock: RunLock | None) -> None:
        self._db = connection
        self._lock = lock
        self._batch = 0
        self._in_use = threading.Lock()  # two pools may report to one ledger

    @classmethod
    def open(cls, folder: Path) -> "Ledger":
        """Open or create the ledger of `folder`, and lock it.

        Raises:
            LedgerError: in use by another run, foreign, damaged, or of another version.
            StorageError: the folder or file cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from None
        lock = RunLock(folder / "ledger.lock")
        try:
            return cls(_connect(folder / FILE_NAME), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def in_memory(cls) -> "Ledger":
        """A ledger that lives as long as its process, for batches that need no resume."""
        return cls(_connect(None), None)

    def close(self) -> None:
        self._db.close()
        if self._lock:
            self._lock.release()

    def entries(self) -> dict[str, Entry]:
        """All tasks ever asked for, by key."""
        with self._use():
            return {row["key"]: _entry(row) for row in self._db.execute("SELECT * FROM tasks")}

    def open_leases(self) -> list[str]:
        """Partial files of attempts that a dead run left behind, relative to its folder."""
        with self._use():
            rows = self._db.execute("SELECT partial_path FROM leases WHERE ended IS NULL")
            return [row["partial_path"] for row in rows]

    def begin_batch(self, entries: Iterable[Entry]) -> None:
        """Record the plan of a batch, all or nothing; open leases of dead runs end here."""
        with self._use(), self._transaction():
            row = self._db.execute(
                "SELECT coalesce(max(batch), 0) + 1 AS next FROM tasks"
            ).fetchone()
            self._batch = row["next"]
            now = time.time()
            self._db.execute(
                "UPDATE leases SET ended = ?, outcome = 'interrupted' WHERE ended IS NULL", (now,)
            )
            self._db.execute("UPDATE tasks SET state = 'pending' WHERE state = 'leased'")
            # Inputs that named no output have no key of their own to be found by again.
            self._db.execute("DELETE FROM tasks WHERE output_path IS NULL")
            self._db.executemany(_UPSERT, [_row(e, self._batch, now) for e in entries])

    def lease(self, lease_id: str, key: str, attempt: int, worker: str, partial: str) -> None:
        """Record a lease; call it before the lease is sent."""
        now = time.time()
        with self._use(), self._transaction():
            self._db.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
                (lease_id, key, attempt, worker, partial, now),
            )
            self._db.execute(
                "UPDATE tasks SET state = 'leased', worker = ?, updated = ? WHERE key = ?",
                (worker, now, key),
            )

    def end_lease(self, lease_id: str, outcome: str, entry: Entry) -> None:
        """Close a lease, and bring its task to the state of `entry` in the same commit."""
        now = time.time()
        with self._use(), self._transaction():
            self._db.execute(
                "UPDATE leases SET ended = ?, outcome = ? WHERE lease_id = ?",
                (now, outcome, lease_id),
            )
            self._db.execute(_UPSERT, _row(entry, self._batch, now))

    def end_lease_alone(self, lease_id: str, outcome: str) -> None:
        """Close a lease of a task that another lease decides about."""
        with self._use():
            self._db.execute(
                "UPDATE leases SET ended = ?, outcome = ? WHERE lease_id = ?",
                (time.time(), outcome, lease_id),
            )

    def set_state(self, entry: Entry) -> None:
        """Bring a task to the state of `entry`."""
        with self._use():
            self._db.execute(_UPSERT, _row(entry, self._batch, time.time()))

    def finished(self) -> list[Entry]:
        """All finished tasks, in the order in which they were asked for."""
        with self._use():
            rows = self._db.execute(
                "SELECT * FROM tasks WHERE state = 'done' ORDER BY batch, position"
            )
            return [_entry(row) for row in rows]

    @contextmanager
    def _use(self) -> Iterator[None]:
        with self._in_use, _errors():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        fault_point("main.before-commit")
        self._db.execute("COMMIT")
        fault_point("main.after-commit")


_COLUMNS = [
    "key",
    "batch",
    "position",
    "task_id",
    "output_path",
    "fingerprint",
    "task",
    "state",
    "worker",
    "error",
    "elapsed",
    "size",
    "sha256",
    "used",
    "updated",
]
_UPSERT = (
    f"INSERT INTO tasks ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{c} = excluded.{c}" for c in _COLUMNS if c != "key")
)


def _row(entry: Entry, batch: int, now: float) -> list[Any]:
    values = {
        **vars(entry),
        "batch": batch,
        "updated": now,
        "task": json.dumps(entry.task),
        "used": json.dumps(entry.used),
    }
    return [values[c] for c in _COLUMNS]


def _entry(row: sqlite3.Row) -> Entry:
    values = dict(row)
    del values["batch"], values["updated"]
    return Entry(**{**values, "task": json.loads(row["task"]), "used": json.loads(row["used"])})


def _connect(file: Path | None) -> sqlite3.Connection:
    shown = str(file or "in-memory ledger")
    try:
        # One thread at a time uses the connection, but it is made in another than it serves in.
        db = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise StorageError(f"{shown}: {error}.") from None
    db.row_factory = sqlite3.Row
    try:
        _prepare(db, shown)
    except sqlite3.OperationalError as error:
        db.close()
        raise StorageError(f"{shown}: {error}.", fatal=True) from None
    except sqlite3.DatabaseError as error:
        db.close()
        raise LedgerError(f"{shown} is damaged or no ledger ({error}). {_WAY_OUT}") from None
    except LedgerError:
        db.close()
        raise
    return db


_WAY_OUT = (
    "Move it away and run again: finished pictures are recognised by what their PNG says of "
    "itself and are not drawn again."
)


def _prepare(db: sqlite3.Connection, shown: str) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise LedgerError(f"{shown} belongs to another program. Choose another output folder.")
    if tables and version != SCHEMA_VERSION:
        raise LedgerError(
            f"{shown} has format {version}, this program writes {SCHEMA_VERSION}. {_WAY_OUT}"
        )
    if tables:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise LedgerError(f"{shown} is damaged ({' '.join(found.split())}). {_WAY_OUT}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    if not tables:
        db.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; {_SCHEMA} COMMIT;"
        )


@contextmanager
def _errors() -> Iterator[None]:
    """sqlite3's errors in our words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(f"{FILE_NAME}: {error}.", fatal=True) from None
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{FILE_NAME} is damaged ({error}). {_WAY_OUT}") from None
