"""What the journal says of jobs, tasks and results, read beside whatever is written."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from apps.server.readers import Readers
from apps.server.records import JobStatus, Outcome, StoredJob, TaskResult
from core.errors import StorageError

JOB_COLUMNS = (
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


class JournalReads:
    """Answers from the database; each method may be called by any thread, and waits for the disk.

    Args:
        connect: opens a connection more.

    Raises:
        sqlite3.Error: the database cannot be opened.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._open = connect
        self._readers = Readers(connect)

    def close(self) -> None:
        """Close its connections."""
        self._readers.close()

    def job(self, id: str) -> StoredJob | None:
        """A job by its name."""
        row = self._rows(f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?", (id,))
        return stored_job(row[0]) if row else None

    def with_key(self, caller: str, key: str) -> tuple[StoredJob, str | None] | None:
        """The job that came under an idempotency key, and the hash of its request."""
        query = (
            f"SELECT request_hash, {JOB_COLUMNS} FROM jobs WHERE caller = ? AND idempotency_key = ?"
        )
        rows = self._rows(query, (caller, key))
        return (stored_job(rows[0][1:]), rows[0][0]) if rows else None

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
        query = f"SELECT {JOB_COLUMNS} FROM jobs WHERE {where} ORDER BY number DESC LIMIT ?"
        return [stored_job(row) for row in self._rows(query, values)]

    def open_jobs(self) -> list[StoredJob]:
        """Jobs that have not ended, in the order of their acceptance."""
        query = f"SELECT {JOB_COLUMNS} FROM jobs WHERE ended IS NULL ORDER BY number"
        return [stored_job(row) for row in self._rows(query)]

    def ended_before(self, moment: float, limit: int = 100) -> list[StoredJob]:
        """The first jobs that ended before a Unix time."""
        query = f"SELECT {JOB_COLUMNS} FROM jobs WHERE ended < ? ORDER BY ended LIMIT ?"
        return [stored_job(row) for row in self._rows(query, (moment, limit))]

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
            with closing(self._open()) as reader:
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
            f"SELECT {JOB_COLUMNS}, position, place, result, task FROM jobs CROSS JOIN tasks "
            f"ON job = number AND place IS NOT NULL WHERE {' AND '.join(conditions)} "
            "ORDER BY number DESC, place DESC LIMIT ?"
        )
        rows = self._rows(query, [*values, limit])
        return [(stored_job(row[:-4]), _result(row[-4:-1]), json.loads(row[-1])) for row in rows]

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


def stored_job(row: tuple[Any, ...]) -> StoredJob:
    """A job from its columns."""
    facts: list[Any] = [*row[:-1], json.loads(row[-1])]
    return StoredJob(*facts)


def _result(row: tuple[Any, ...]) -> TaskResult:
    position, place, text = row
    return TaskResult(position, place, json.loads(text))
