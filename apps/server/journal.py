"""The durable queue: accepted jobs, their tasks and what became of them, in one SQLite file.

A job is accepted once it is on the disk. What the pictures' own ledger is to one folder of
results, the journal is to callers: which job a task belongs to, and who may ask about it.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

from apps.server.group_commit import GroupCommit
from apps.server.outlines import job_outline
from apps.server.readers import Readers
from apps.server.records import (
    JobStatus,
    NewJob,
    Outcome,
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
_JOB = (
    "number, id, caller, priority, source, status, created, started, ended, total, succeeded, "
    "failed, metadata"
)

_STATUS = "json_extract(result, '$.status')"
_FAILED = "failed > 0 AND NOT json_extract(result, '$.success')"
_OUTCOMES: Mapping[Outcome, str] = {
    "done": "succeeded > 0 AND json_extract(result, '$.success')",
    "failed": f"{_FAILED} AND {_STATUS} <> 'interrupted'",
    "cancelled": f"{_FAILED} AND {_STATUS} = 'interrupted'",
}


class KeyReused(Exception):
    """An idempotency key came with another request before."""


class Journal:
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
            self._readers = Readers(self._connect)
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
        self._readers.close()
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

    # -- reads -----------------------------------------------------------------

    def job(self, id: str) -> StoredJob | None:
        """A job by its name."""
        row = self._rows(f"SELECT {_JOB} FROM jobs WHERE id = ?", (id,))
        return _stored(row[0]) if row else None

    def with_key(self, caller: str, key: str) -> tuple[StoredJob, str | None] | None:
        """The job that came under an idempotency key, and the hash of its request."""
        query = f"SELECT request_hash, {_JOB} FROM jobs WHERE caller = ? AND idempotency_key = ?"
        rows = self._rows(query, (caller, key))
        return (_stored(rows[0][1:]), rows[0][0]) if rows else None

    def jobs(
        self,
        caller: str,
        before: int | None = None,
        limit: int = 100,
        status: JobStatus | None = None,
    ) -> list[StoredJob]:
        """The newest jobs of a caller, newest first.

        Args:
            before: only those with lower numbers.
            status: only those that have ended so; open jobs are of no status here.
        """
        conditions: dict[str, object] = {"caller = ?": caller}
        if before is not None:
            conditions["number < ?"] = before
        if status is not None:
            conditions["ended IS NOT NULL AND status = ?"] = status
        where, values = " AND ".join(conditions), [*conditions.values(), limit]
        query = f"SELECT {_JOB} FROM jobs WHERE {where} ORDER BY number DESC LIMIT ?"
        return [_stored(row) for row in self._rows(query, values)]

    def open_jobs(self) -> list[StoredJob]:
        """Jobs that have not ended, in the order of their acceptance."""
        query = f"SELECT {_JOB} FROM jobs WHERE ended IS NULL ORDER BY number"
        return [_stored(row) for row in self._rows(query)]

    def ended_before(self, moment: float, limit: int = 100) -> list[StoredJob]:
        """The first jobs that ended before a Unix time."""
        query = f"SELECT {_JOB} FROM jobs WHERE ended < ? ORDER BY ended LIMIT ?"
        return [_stored(row) for row in self._rows(query, (moment, limit))]

    def open_tasks(self, number: int) -> list[tuple[int, dict[str, Any]]]:
        """Position and fields of a job's tasks that have no result."""
        query = "SELECT position, task FROM tasks WHERE job = ? AND result IS NULL"
        return [(p, json.loads(task)) for p, task in self._rows(query, (number,))]

    def task(self, number: int, position: int) -> dict[str, Any] | None:
        """The fields of one task of a job."""
        query = "SELECT task FROM tasks WHERE job = ? AND position = ?"
        rows = self._rows(query, (number, position))
        return json.loads(rows[0][0]) if rows else None

    def task_texts(self) -> Iterator[str]:
        """The JSON of all tasks, read beside whatever else is read."""
        try:
            with closing(self._connect()) as reader:
                for (text,) in reader.execute("SELECT task FROM tasks"):
                    yield text
        except sqlite3.Error as error:
            raise StorageError(f"The queue cannot be read: {error}.") from None

    def results(self, number: int, after: int = 0, limit: int = -1) -> list[TaskResult]:
        """Results of a job in the order in which they came, from the one after `after` on."""
        query = (
            "SELECT position, place, result FROM tasks WHERE job = ? AND place > ? "
            "ORDER BY place LIMIT ?"
        )
        return [_result(row) for row in self._rows(query, (number, after, limit))]

    def results_by_position(
        self, number: int, first: int = 0, limit: int = -1, success: bool | None = None
    ) -> list[TaskResult]:
        """Results of a job in the order of its tasks, from position `first` on.

        Args:
            success: only those of tasks that ended well (True) or otherwise (False).
        """
        wanted = "" if success is None else f"AND json_extract(result, '$.success') = {success:d} "
        query = (
            "SELECT position, place, result FROM tasks WHERE job = ? AND position >= ? "
            f"AND result IS NOT NULL {wanted}ORDER BY position LIMIT ?"
        )
        return [_result(row) for row in self._rows(query, (number, first, limit))]

    def results_of(
        self,
        caller: str,
        before: tuple[int, int] | None = None,
        limit: int = 100,
        outcome: Outcome | None = None,
        kind: str | None = None,
        words: str | None = None,
    ) -> list[tuple[StoredJob, TaskResult, dict[str, Any]]]:
        """Results of all jobs of a caller with their tasks: newest job first, newest result first.

        Args:
            before: number of a job and place of its result: only those that come after it here.
            outcome: only those of tasks that ended so.
            kind: only those of tasks of this kind.
            words: only those of tasks whose prompt or instruction has this text, in any case.
        """
        conditions: dict[str, Sequence[object]] = {"caller = ?": [caller]}
        if before is not None:
            conditions["number <= ? AND (number < ? OR place < ?)"] = [before[0], *before]
        if outcome is not None:
            conditions[_OUTCOMES[outcome]] = []
        if kind is not None:
            conditions["json_extract(result, '$.kind') = ?"] = [kind]
        if words:
            prompt = "coalesce(task ->> '$.prompt', task ->> '$.instruction', '')"
            conditions[f"instr(casefold({prompt}), ?)"] = [words.casefold()]
        values = [value for group in conditions.values() for value in group]
        # A cross join is one whose order SQLite keeps: jobs by number, then results by place.
        query = (
            f"SELECT {_JOB}, position, place, result, task FROM jobs CROSS JOIN tasks "
            f"ON job = number AND place IS NOT NULL WHERE {' AND '.join(conditions)} "
            "ORDER BY number DESC, place DESC LIMIT ?"
        )
        rows = self._rows(query, [*values, limit])
        return [(_stored(row[:-4]), _result(row[-4:-1]), json.loads(row[-1])) for row in rows]

    def newest_results(self, limit: int) -> list[dict[str, Any]]:
        """Results of the newest tasks that ended well, the oldest of them first."""
        query = (
            "SELECT result FROM tasks JOIN jobs ON number = job WHERE succeeded > 0 "
            "AND json_extract(result, '$.success') ORDER BY job DESC, place DESC LIMIT ?"
        )
        return [json.loads(text) for (text,) in reversed(self._rows(query, (limit,)))]

    def output_paths(self, number: int) -> list[str]:
        """Where results of a job lie, or would."""
        query = "SELECT json_extract(task, '$.output_path') FROM tasks WHERE job = ?"
        return [path for (path,) in self._rows(query, (number,)) if path]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._readers.one() as reader:
                return reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"The queue cannot be read: {error}.") from None


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
    return _stored(db.execute(f"SELECT {_JOB} FROM jobs WHERE number = ?", (number,)).fetchone())


def _stored(row: tuple[Any, ...]) -> StoredJob:
    facts: list[Any] = [*row[:-1], json.loads(row[-1])]
    return StoredJob(*facts)


def _result(row: tuple[Any, ...]) -> TaskResult:
    position, place, text = row
    return TaskResult(position, place, json.loads(text))
