"""A job that is on its way, as the daemon's callers follow it. All of it in the event loop."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from apps.server.records import ENDED, JobStatus, StoredJob, TaskResult
from core.engine.job import Job


@dataclass(frozen=True)
class Running:
    """A task that a worker has.

    Attributes:
        done: steps of `total`; both are 0 until the first is told.
    """

    task_id: str
    worker: str
    done: int = 0
    total: int = 0


@dataclass
class LiveJob:
    """What is known of a job beyond the journal, until nobody follows it any more.

    Attributes:
        results: in the order in which they came; each is in the journal already.
        running: by the tasks' names.
        engine_job: the generator's handle, once it has one.
        to_be_cancelled: its caller wants no more of it.
    """

    stored: StoredJob
    results: list[TaskResult] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    engine_job: Job | None = None
    to_be_cancelled: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        return self.stored.status in ENDED

    @property
    def waiting(self) -> int:
        """Tasks without a result that no worker has."""
        return max(0, self.stored.total - len(self.results) - len(self.running))

    def began(self) -> None:
        """The first task was given to a worker."""
        if self.stored.status == "queued":
            self.update(status="running")

    def add(self, result: TaskResult) -> None:
        """A result has come, and is in the journal."""
        self.results.append(result)
        self.running.pop(str(result.result.get("task_id")), None)
        success = bool(result.result["success"])
        self.update(
            succeeded=self.stored.succeeded + success, failed=self.stored.failed + (not success)
        )

    def end(self, stored: StoredJob) -> None:
        """The job has ended, and the journal says how."""
        self.running.clear()
        self.stored = stored
        self.tell()

    def update(self, **changes: Any) -> None:
        self.stored = replace(self.stored, **changes)
        self.tell()

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def change(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    async def end_of_it(self) -> StoredJob:
        """Wait until the job has ended."""
        while not self.ended:
            await self.change()
        return self.stored

    async def results_from(self, place: int) -> AsyncIterator[TaskResult]:
        """Results from the one after `place` (0: from the first) until the job ends."""
        while True:
            while place < len(self.results):
                place += 1
                yield self.results[place - 1]
            if self.ended:
                return
            await self.change()


def status_at_end(stored: StoredJob, cancelled: bool) -> JobStatus:
    """How a job ended of which every task has a result: failed only if nothing succeeded."""
    if cancelled:
        return "cancelled"
    return "completed" if stored.succeeded or not stored.failed else "failed"
