"""Jobs of commands are dropped when the command is gone: nobody else would fetch their results."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger

from apps.server.records import StoredJob
from apps.server.service import Service


class Leashes:
    """Knows which jobs of commands are followed, and drops those that were not for long.

    Args:
        patience: seconds.
    """

    def __init__(self, service: Service, patience: float) -> None:
        self._service = service
        self._patience = patience
        self._jobs: dict[str, StoredJob] = {}
        self._followers: dict[str, int] = {}
        self._left: dict[str, float] = {}  # monotonic times, of jobs that nobody follows
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch from now on; jobs of an earlier daemon have as long as new ones."""
        for live in self._service.lives():
            if live.stored.metadata.get("leash"):
                self.hold(live.stored)
        self._looking = asyncio.create_task(self._look())

    def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    def hold(self, job: StoredJob) -> None:
        """A command has handed in a job, and will fetch its results."""
        if job.id not in self._jobs:
            self._service.wanted.add(job.id)
        self._jobs[job.id] = job
        self._left[job.id] = time.monotonic()

    def let_go(self, id: str) -> None:
        """A job was dropped by whoever handed it in."""
        if self._jobs.pop(id, None) is not None:
            self._service.wanted.discard(id)
        self._left.pop(id, None)

    @contextmanager
    def followed(self, id: str) -> Iterator[None]:
        """Somebody follows a job meanwhile."""
        self._followers[id] = self._followers.get(id, 0) + 1
        self._left.pop(id, None)
        try:
            yield
        finally:
            self._followers[id] -= 1
            if not self._followers[id]:
                del self._followers[id]
                if id in self._jobs:
                    self._left[id] = time.monotonic()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._patience / 6)
            before = time.monotonic() - self._patience
            for id in [id for id, moment in self._left.items() if moment < before]:
                job = self._jobs[id]
                self.let_go(id)
                logger.info(f"{id} is dropped: the command that handed it in is gone.")
                try:
                    await self._service.drop(job)
                except Exception:
                    logger.exception(f"{id} cannot be dropped; this is a defect.")
