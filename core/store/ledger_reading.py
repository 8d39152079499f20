"""The record of an output folder, read from outside: without its lock and without a change to it.

A run may be writing it meanwhile: SQLite's write-ahead log gives every reader one moment of it.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import LedgerError, StorageError
from core.store.ledger_entry import Entry, from_row
from core.store.ledger_file import APPLICATION_ID, FILE_NAME, SCHEMA_VERSION, read_only, wal_of


@dataclass(frozen=True)
class Recorded:
    """One task of the record.

    Attributes:
        batch: the newest batch that asked for it.
        updated: Unix time of its newest change.
    """

    entry: Entry
    batch: int
    updated: float


@dataclass(frozen=True)
class RecordedLease:
    """One attempt at a task.

    Attributes:
        key: of its task's entry.
        given, ended: Unix times; `ended` is None while it runs, and after its run was killed.
        outcome: `done`, a cause such as `crash`, or `interrupted`.
    """

    key: str
    attempt: int
    worker: str
    given: float
    ended: float | None
    outcome: str | None


@dataclass(frozen=True)
class FolderRecord:
    """All that a folder's record holds at one moment; tasks in the order in which they were asked.

    Leases are in the order in which they were given.
    """

    tasks: list[Recorded]
    leases: list[RecordedLease]


def read_record(folder: Path) -> FolderRecord | None:
    """Read the record of an output folder; None where it has none.

    Raises:
        LedgerError: damaged, another program's, or of another format.
        StorageError: it cannot be read now.
    """
    file = folder / FILE_NAME
    try:
        if not file.exists() or not file.stat().st_size:
            return None
        with _opened(file) as db:
            _check(db, file)
            rows = db.execute("SELECT * FROM tasks ORDER BY batch, position").fetchall()
            tasks = [
                Recorded(from_row(row), int(row["batch"]), float(row["updated"])) for row in rows
            ]
            leases = db.execute(
                "SELECT key, attempt, worker, given, ended, outcome FROM leases ORDER BY given"
            )
            return FolderRecord(tasks, [RecordedLease(*row) for row in leases])
    except sqlite3.OperationalError as error:
        raise StorageError(f"{file}: it cannot be read: {error}.") from None
    except (sqlite3.DatabaseError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(
            f"{file} is damaged ({reason}). The next run in this folder makes it up again from "
            "the results that lie there."
        ) from None
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror or error}.") from None


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one reading; of a copy, where the file's system shares no memory."""
    with ExitStack() as stack:
        db = stack.enter_context(closing(read_only(file)))
        try:
            db.execute("BEGIN")  # one moment for all queries
            db.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            copy = Path(folder) / file.name
            shutil.copyfile(file, copy)
            if wal_of(file).exists():
                shutil.copyfile(wal_of(file), wal_of(copy))
            db = stack.enter_context(closing(sqlite3.connect(copy)))
            db.row_factory = sqlite3.Row
        yield db


def _check(db: sqlite3.Connection, file: Path) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise LedgerError(f"{file} belongs to another program.")
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"{file} has format {version}, this program reads {SCHEMA_VERSION}. Use the program "
            "that made it, or run once more in this folder."
        )
