"""The durable queue: accepted jobs, their tasks and what became of them, in one SQLite file.

A job is accepted once it is on the disk. What the pictures' own ledger is to one folder of
results, the journal is to callers: which job a task belongs to, and who may ask about it.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from apps.server.group_commit import GroupCommit
from apps.server.journal_reads import JOB_COLUMNS, JournalReads, stored_job
from apps.server.outlines import job_outline
from apps.server.records import (
    NewJob,
    Settled,
    StoredJob,
    TaskResult,
    refused_result,
    status_at_end,
)
from core.errors import LedgerError, StorageError
from core.store.run_lock import RunLock

FILE_NAME = "journal.sqlite"
LOCK_NAME = "journal.lock"
SCHEMA_VERSION = 1
PATIENCE = 10.0  # seconds for a lock of the database
CACHE = 512  # KiB of the file that the writer keeps; jobs are added at its end

SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    caller TEXT NOT NULL,
    priority INTEGER NOT NULL,
    source TEXT NOT NULL,
    status TEXT NOT NULL,
    created REAL NOT NULL,           -- Unix time
    started REAL,
    ended REAL,
    total INTEGER NOT NULL,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    idempotency_key TEXT,
    request_hash TEXT,
    metadata TEXT NOT NULL           -- JSON
);
CREATE UNIQUE INDEX jobs_by_key ON jobs (caller, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX open_jobs ON jobs (number) WHERE ended IS NULL;
CREATE INDEX ended_jobs ON jobs (ended) WHERE ended IS NOT NULL;
CREATE TABLE tasks (
    job INTEGER NOT NULL,
    position INTEGER NOT NULL,
    task TEXT NOT NULL,              -- JSON
    place INTEGER,                   -- of its result among the job's results, from 1
    result TEXT,                     -- JSON
    PRIMARY KEY (job, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX results_in_order ON tasks (job, place) WHERE place IS NOT NULL;
"""


class KeyReused(Exception):
    """An idempotency key came with another request before."""


class Journal(JournalReads):
    """The queue of one daemon. Changes are made by one thread, reads by whoever asks.

    Raises:
        LedgerError: another daemon uses the folder, or the file is no journal.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror}.") from None
        self._file = folder / FILE_NAME
        self._lock = RunLock(folder / LOCK_NAME)
        try:
            writer = self._connect()
            writer.execute(f"PRAGMA cache_size=-{CACHE}")
            _prepare(writer, self._file)
            super().__init__(self._connect)
        except sqlite3.Error as error:
            self._lock.release()
            raise LedgerError(f"{self._file}: {error}.") from None
        self._writes = GroupCommit(writer)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, PATIENCE, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.create_function("casefold", 1, str.casefold, deterministic=True)
        return connection

    def close(self) -> None:
        """Write what was handed in so far and give the folder free."""
        self._writes.close()
        super().close()
        self._lock.release()

    # -- changes ---------------------------------------------------------------

    def accept(self, job: NewJob) -> "Future[tuple[StoredJob, bool]]":
        """Take a job: it survives whatever comes from the moment the future has its value.

        Returns:
            The job, and whether it is new: False for one that came before under its key.

        Raises:
            KeyReused: in the future: its key belongs to another request.
        """
        rows = [json.dumps(task) for task in job.tasks]
        metadata = json.dumps({**job_outline(job.tasks), **job.metadata})
        refused = [
            (position, json.dumps(refused_result(position, job.tasks[position], error)), False)
            for position, error in sorted(job.refused.items())
        ]

        def change(db: sqlite3.Connection) -> tuple[StoredJob, bool]:
            known = _with_key(db, job)
            if known is not None:
                return known, False
            number = db.execute(
                "INSERT INTO jobs (id, caller, priority, source, status, created, total, "
                "idempotency_key, request_hash, metadata) VALUES (?,?,?,?,'queued',?,?,?,?,?)",
                (
                    job.id,
                    job.caller,
                    job.priority,
                    job.source,
                    time.time(),
                    len(rows),
                    job.key.key,
                    job.key.hash,
                    metadata,
                ),
            ).lastrowid
            assert number is not None
            db.executemany(
                "INSERT INTO tasks (job, position, task) VALUES (?,?,?)",
                ((number, position, row) for position, row in enumerate(rows)),
            )
            if refused:
                _add_results(db, number, refused)
                _end_if_complete(db, number, cancelled=False, started=None)
            return _job(db, number), True

        return self._writes.do(change)

    def settle(
        self,
        number: int,
        results: Sequence[tuple[int, Mapping[str, Any]]],
        cancelled: bool = False,
        started: float | None = None,
    ) -> "Future[Settled]":
        """Record what became of tasks of one job, by position, and its end if these were the last.

        A task that has a result keeps it.

        Args:
            cancelled: the job ends as cancelled.
            started: Unix time at which its first task was given to a worker.
        """
        rows = [(position, json.dumps(dict(r)), bool(r["success"])) for position, r in results]
        records = dict(results)

        def change(db: sqlite3.Connection) -> Settled:
            places = _add_results(db, number, rows)
            _end_if_complete(db, number, cancelled, started)
            new = [TaskResult(position, place, records[position]) for position, place in places]
            return Settled(_job(db, number), new)

        return self._writes.do(change)

    def cancel(self, number: int) -> "Future[StoredJob]":
        """Note that a job that has not ended is to end as cancelled."""

        def change(db: sqlite3.Connection) -> StoredJob:
            db.execute(
                "UPDATE jobs SET status = 'cancelled' WHERE number = ? AND ended IS NULL", (number,)
            )
            return _job(db, number)

        return self._writes.do(change)

    def forget(self, numbers: Sequence[int]) -> "Future[None]":
        """Remove jobs with their tasks and results."""

        def change(db: sqlite3.Connection) -> None:
            for number in numbers:
                db.execute("DELETE FROM tasks WHERE job = ?", (number,))
                db.execute("DELETE FROM jobs WHERE number = ?", (number,))

        return self._writes.do(change)


def _prepare(db: sqlite3.Connection, file: Path) -> None:
    """Give a new database its tables; refuse one that is of another format."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    tables: Iterator[tuple[str]] = db.execute("SELECT name FROM sqlite_master LIMIT 1")
    if version == 0 and next(tables, None) is None:
        db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version != SCHEMA_VERSION:
        raise LedgerError(
            f"{file}: format {version}, where this version reads {SCHEMA_VERSION}. "
            "Choose another output folder."
        )


def _add_results(
    db: sqlite3.Connection, number: int, rows: Sequence[tuple[int, str, bool]]
) -> list[tuple[int, int]]:
    """Give tasks results (position, JSON, success); returns position and place of new ones."""
    (before,) = db.execute(
        "SELECT succeeded + failed FROM jobs WHERE number = ?", (number,)
    ).fetchone()
    places: list[tuple[int, int]] = []
    succeeded = 0
    for position, text, success in rows:
        place = before + len(places) + 1
        changed = db.execute(
            "UPDATE tasks SET result = ?, place = ? "
            "WHERE job = ? AND position = ? AND result IS NULL",
            (text, place, number, position),
        ).rowcount
        if changed:
            places.append((position, place))
            succeeded += success
    db.execute(
        "UPDATE jobs SET succeeded = succeeded + ?, failed = failed + ? WHERE number = ?",
        (succeeded, len(places) - succeeded, number),
    )
    return places


def _end_if_complete(
    db: sqlite3.Connection, number: int, cancelled: bool, started: float | None
) -> None:
    row = db.execute(
        "SELECT succeeded, failed, total, status FROM jobs WHERE number = ? AND ended IS NULL",
        (number,),
    ).fetchone()
    if row is None:
        return
    succeeded, failed, total, status = row
    ended = None
    if succeeded + failed == total:
        ended = time.time()
        status = status_at_end(succeeded, failed, cancelled or status == "cancelled")
    db.execute(
        "UPDATE jobs SET status = ?, started = coalesce(started, ?), ended = ? WHERE number = ?",
        (status, started, ended, number),
    )


def _with_key(db: sqlite3.Connection, job: NewJob) -> StoredJob | None:
    if job.key.key is None:
        return None
    row = db.execute(
        "SELECT number, request_hash FROM jobs WHERE caller = ? AND idempotency_key = ?",
        (job.caller, job.key.key),
    ).fetchone()
    if row is None:
        return None
    if row[1] != job.key.hash:
        raise KeyReused(job.key.key)
    return _job(db, row[0])


def _job(db: sqlite3.Connection, number: int) -> StoredJob:
    return stored_job(
        db.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE number = ?", (number,)).fetchone()
    )
