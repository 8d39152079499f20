"""Jobs whose time is up, and all that is kept of them."""

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from loguru import logger

from apps.server.journal import Journal
from apps.server.records import StoredJob
from apps.server.wanted_jobs import WantedJobs
from core import MultiGPUImageGenerator
from core.errors import MultiGPUError

JOBS = "jobs"  # the folder of results, by job
THUMBNAILS = "thumbnails"  # and of small copies of them, which may be missing
SWEEP_PAUSE = 600.0  # seconds between looks for jobs whose time is up
FORGET_AT_ONCE = 100


class OldJobs:
    """Removes what is old.

    Args:
        hours: for which a job that has ended is kept.

    Attributes:
        wanted: jobs that stay although their time is up.
        sweepers: remove what is old and not jobs' own; called in threads, now and then.
    """

    def __init__(self, generator: MultiGPUImageGenerator, journal: Journal, hours: float) -> None:
        self._generator = generator
        self._journal = journal
        self._hours = hours
        self.wanted = WantedJobs()
        self.sweepers: list[Callable[[], object]] = []
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for what is old, now and from time to time."""
        self._sweeper = asyncio.create_task(self._sweep())

    def stop(self) -> None:
        """Look no more."""
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _sweep(self) -> None:
        """Remove jobs, with all that is kept of them, when their time is up."""
        while True:
            try:
                await self.forget_ended(time.time() - 3600 * self._hours)
                for sweeper in self.sweepers:
                    await asyncio.to_thread(sweeper)
            except MultiGPUError as error:
                logger.warning(f"Old jobs cannot be removed now: {error}")
            except Exception:
                logger.exception("Old jobs cannot be removed; this is a defect.")
            await asyncio.sleep(min(SWEEP_PAUSE, 900 * self._hours))

    async def forget_ended(self, before: float) -> None:
        """Forget jobs that ended before a Unix time, with their results, unless they are wanted.

        Pictures go first and the journal last, so that a crash leaves nothing over.
        """
        while True:
            most = FORGET_AT_ONCE + len(self.wanted)
            found = await asyncio.to_thread(self._journal.ended_before, before, most)
            jobs = [job for job in found if job.id not in self.wanted]
            if not jobs:
                return
            await self.forget(jobs)

    async def forget(self, jobs: Sequence[StoredJob]) -> None:
        """Remove jobs that have ended, and all that is kept of them."""
        await asyncio.to_thread(self._remove_results, jobs)
        await asyncio.wrap_future(self._journal.forget([job.number for job in jobs]))

    @property
    def _folder(self) -> Path:
        return self._generator.output_folder

    def _remove_results(self, jobs: Sequence[StoredJob]) -> None:
        for job in jobs:
            for folder in (JOBS, THUMBNAILS):
                shutil.rmtree(self._folder / folder / job.id, ignore_errors=True)
            self._generator.forget(self._journal.output_paths(job.number))
