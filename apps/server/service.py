"""Jobs from acceptance to their end: the journal on one side, a warm generator on the other.

Everything here runs in the event loop, except for what waits for a disk. A job is journalled
first; then the generator gets its tasks, and the journal each result. What has no result when the
daemon dies gets it from the next one: the generator's own ledger knows what was drawn already.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from loguru import logger

from apps.server.errors import ApiError, not_found
from apps.server.journal import Journal, KeyReused
from apps.server.live_job import LiveJob, Running, status_at_end
from apps.server.records import NewJob, StoredJob, TaskResult
from apps.server.settings import ServerSection
from core import MultiGPUImageGenerator, Result
from core.engine.job import CANCELLED, Job
from core.errors import MultiGPUError, StorageError
from core.events import Event, TaskProgress, TaskStarted

JOBS = "jobs"  # the folder of results, by job
DISK_PAUSE = 5.0  # seconds until a disk that refused is asked again
SWEEP_PAUSE = 600.0  # seconds between looks for jobs whose time is up
FORGET_AT_ONCE = 100
UNAVAILABLE = "server_error"


class Service:
    """The daemon behind its routes.

    Args:
        generator: draws, edits and scores; with an output folder, which is the daemon's.
        journal: in the same folder.

    Attributes:
        draining: no job is accepted any more.
        sweepers: remove what is old and not the service's own; called in threads, now and then.
    """

    def __init__(
        self, generator: MultiGPUImageGenerator, journal: Journal, rules: ServerSection
    ) -> None:
        self.generator = generator
        self.rules = rules
        self.draining = False
        self.sweepers: list[Callable[[], object]] = []
        self._journal = journal
        self._live: dict[str, LiveJob] = {}
        self._waiting: dict[str, int] = {}  # tasks without a result, by caller
        self._followers: set[asyncio.Task[None]] = set()
        self._feeder = ThreadPoolExecutor(1, thread_name_prefix="feeder")
        self._leaving = False
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def folder(self) -> Path:
        """Where results lie."""
        return self.generator.output_folder

    async def start(self) -> None:
        """Start the workers, and carry on with what was accepted and not ended."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.generator.start)
        jobs = await asyncio.to_thread(self._journal.open_jobs)
        for stored in jobs:
            live = LiveJob(stored, self._journal.results(stored.number))
            live.to_be_cancelled = stored.status == "cancelled"
            self._take(live)
        if jobs:
            logger.info(f"{len(jobs)} jobs of an earlier run go on.")
        self._sweeper = asyncio.create_task(self._sweep())

    # -- for routes ------------------------------------------------------------

    async def submit(self, job: NewJob) -> tuple[StoredJob, bool]:
        """Accept a job; on return it survives whatever comes.

        Returns:
            The job, and whether it is new: False for one that came before under its key.

        Raises:
            ApiError: 409 for a key that belongs to another request, 429 where too much waits,
                503 while the daemon leaves, 507 where the disk takes nothing more.
        """
        self._check_room(job)
        self._count(job.caller, len(job.tasks))  # before the wait: others ask meanwhile
        taken = False
        try:
            stored, taken = await asyncio.wrap_future(self._journal.accept(job))
        except KeyReused:
            raise ApiError(
                409,
                "The Idempotency-Key was used before with another request.",
                "idempotency_key_reused",
                type="idempotency_error",
            ) from None
        except StorageError as error:
            raise ApiError(507, str(error), "insufficient_storage", type=UNAVAILABLE) from None
        finally:
            if not taken:
                self._count(job.caller, -len(job.tasks))
        if taken:
            self._count(job.caller, -len(job.tasks))
            self._take(LiveJob(stored))
        return stored, taken

    async def find(self, id: str, caller: str) -> StoredJob:
        """A job of a caller, as it stands.

        Raises:
            ApiError: 404: there is none, or it is somebody else's.
        """
        live = self._live.get(id)
        stored = live.stored if live else await asyncio.to_thread(self._journal.job, id)
        if stored is None or stored.caller != caller:
            raise not_found(f"No job is called '{id}'.", "job_not_found")
        return stored

    def live(self, id: str) -> LiveJob | None:
        """A job that has not ended, or did while somebody followed it."""
        return self._live.get(id)

    async def jobs(
        self, caller: str, before: int | None = None, limit: int = 100, source: str | None = None
    ) -> list[StoredJob]:
        """The newest jobs of a caller, newest first; see `Journal.jobs`."""
        stored = await asyncio.to_thread(self._journal.jobs, caller, before, limit, source)
        return [self._live[job.id].stored if job.id in self._live else job for job in stored]

    async def results(self, job: StoredJob, first: int = 0, limit: int = 100) -> list[TaskResult]:
        """Results of a job in the order of its tasks, from position `first` on."""
        read = self._journal.results_by_position
        return await asyncio.to_thread(read, job.number, first, limit)

    async def task(self, job: StoredJob, position: int) -> dict[str, object] | None:
        """The fields of one task of a job."""
        return await asyncio.to_thread(self._journal.task, job.number, position)

    def task_texts(self) -> Iterator[str]:
        """All tasks of all jobs, as they are stored."""
        return self._journal.task_texts()

    async def cancel(self, job: StoredJob) -> StoredJob:
        """Have no more of a job's tasks started. What runs is finished and kept."""
        live = self._live.get(job.id)
        if live is None or live.ended:
            return await self.find(job.id, job.caller)
        live.to_be_cancelled = True
        await asyncio.wrap_future(self._journal.mark(job.number, "cancelled", ended=False))
        if live.engine_job is not None:
            live.engine_job.cancel()
        return live.stored

    def waiting(self, caller: str | None = None) -> int:
        """Tasks without a result, of one caller or of all."""
        return sum(self._waiting.values()) if caller is None else self._waiting.get(caller, 0)

    # -- the end -----------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Accept nothing more, and work on what waits for so many seconds at most."""
        self.draining = True
        if self._followers:
            await asyncio.wait(self._followers, timeout=timeout)

    async def close(self) -> None:
        """Stop the workers. What has no result waits in the journal for the next start."""
        self.draining = self._leaving = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.generator.abandon()
        await asyncio.to_thread(self.generator.stop)
        if self._followers:
            await asyncio.wait(self._followers)
        self._feeder.shutdown()
        await asyncio.to_thread(self._journal.close)

    # -- a job's way ---------------------------------------------------------------

    def _check_room(self, job: NewJob) -> None:
        if self.draining:
            raise ApiError(
                503,
                "The server is about to stop and takes no new jobs.",
                "draining",
                type=UNAVAILABLE,
                headers={"Retry-After": "30"},
            )
        for waiting, most in (
            (self.waiting(job.caller), self.rules.max_waiting_per_key),
            (self.waiting(), self.rules.max_waiting),
        ):
            if waiting + len(job.tasks) > most:
                raise ApiError(
                    429,
                    f"{waiting} tasks wait already, and {most} may. Come again later.",
                    "rate_limit_exceeded",
                    type="rate_limit_error",
                    headers={"Retry-After": "30"},
                )

    def _count(self, caller: str, tasks: int) -> None:
        self._waiting[caller] = self._waiting.get(caller, 0) + tasks
        if not self._waiting[caller]:
            del self._waiting[caller]

    def _take(self, live: LiveJob) -> None:
        self._live[live.stored.id] = live
        self._count(live.stored.caller, live.stored.total - len(live.results))
        follower = asyncio.create_task(self._follow(live))
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)

    async def _follow(self, live: LiveJob) -> None:
        """Bring a job to its end, whatever the disk says meanwhile."""
        while not self._leaving:
            try:
                await self._work_on(live)
                return
            except StorageError as error:
                logger.error(f"{live.stored.id} waits for the disk: {error}")
                await asyncio.sleep(DISK_PAUSE)
            except Exception:
                logger.exception(f"{live.stored.id} cannot go on; the next start tries it again.")
                return

    async def _work_on(self, live: LiveJob) -> None:
        number = live.stored.number
        tasks = await asyncio.to_thread(self._journal.open_tasks, number)
        positions = [position for position, _ in tasks]
        if live.to_be_cancelled:
            for position, task in tasks:
                await self._settle(live, position, _not_tried(position, task))
        elif tasks:
            inputs = [task for _, task in tasks]
            submit = partial(self._submit, live, inputs)
            engine_job = await self._loop.run_in_executor(self._feeder, submit)
            live.engine_job = engine_job
            if live.to_be_cancelled:
                engine_job.cancel()
            async for result in engine_job:
                if result.status != "interrupted" or live.to_be_cancelled:
                    await self._settle(live, positions[result.position], result)
        if live.stored.succeeded + live.stored.failed == live.stored.total:
            await self._end(live)

    def _submit(self, live: LiveJob, inputs: list[dict[str, object]]) -> Job:
        """Hand tasks to the generator; in the feeder's thread, which may wait for the disk."""
        stored = live.stored
        try:
            return self.generator.submit(
                inputs, stored.priority, stored.caller, partial(self._heard, live)
            )
        except StorageError:
            raise
        except MultiGPUError as error:
            job = Job(0, lambda *_: None, lambda *_: None, _refused(inputs, str(error)))
            job.finish()
            return job

    async def _settle(self, live: LiveJob, position: int, result: Result) -> None:
        record = {**result.as_dict(), "position": position}
        stored = live.stored
        place = await asyncio.wrap_future(self._journal.settle(stored.number, position, record))
        if place is not None:
            live.add(TaskResult(position, place, record))
            self._count(stored.caller, -1)

    async def _end(self, live: LiveJob) -> None:
        status = status_at_end(live.stored, live.to_be_cancelled)
        mark = self._journal.mark(live.stored.number, status, ended=True)
        stored = await asyncio.wrap_future(mark)
        self._live.pop(stored.id, None)
        live.end(stored)

    def _heard(self, live: LiveJob, event: Event) -> None:
        """What the engine's thread tells of a job's tasks."""
        if isinstance(event, TaskStarted | TaskProgress):
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._note, live, event)

    def _note(self, live: LiveJob, event: TaskStarted | TaskProgress) -> None:
        steps = (event.done, event.total) if isinstance(event, TaskProgress) else (0, 0)
        live.running[event.task_id] = Running(event.task_id, event.worker, *steps)
        live.began()
        live.tell()

    # -- what is old ---------------------------------------------------------------

    async def _sweep(self) -> None:
        """Remove jobs, with all that is kept of them, when their time is up."""
        while True:
            with suppress(StorageError):
                await self._forget_ended(time.time() - 3600 * self.rules.keep_results)
                for sweeper in self.sweepers:
                    await asyncio.to_thread(sweeper)
            await asyncio.sleep(SWEEP_PAUSE)

    async def _forget_ended(self, before: float) -> None:
        while True:
            read = self._journal.ended_before
            jobs = await asyncio.to_thread(read, before, FORGET_AT_ONCE)
            if not jobs:
                return
            for job in jobs:
                folder = self.folder / JOBS / job.id
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            await asyncio.wrap_future(self._journal.forget([job.number for job in jobs]))


def _not_tried(position: int, task: dict[str, object]) -> Result:
    name = str(task.get("task_id") or position)
    return Result(position, name, "interrupted", None, error=CANCELLED)


def _refused(inputs: list[dict[str, object]], error: str) -> list[Result]:
    return [
        Result(position, str(task.get("task_id") or position), "failed", None, error=error)
        for position, task in enumerate(inputs)
    ]
