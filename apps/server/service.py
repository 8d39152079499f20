"""Jobs from acceptance to their end: the journal on one side, a warm generator on the other.

Everything here runs in the event loop, except for what waits for a disk. A job is journalled
first; then the generator gets its tasks, and the journal each result. What has no result when the
daemon dies gets it from the next one: the generator's own ledger knows what was drawn already.
"""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from apps.server.errors import DO_NOT_REPEAT, SERVER, ApiError, leaving, not_found
from apps.server.estimates import Backlog, Estimate, Share, TaskSeconds, estimate, retry_after
from apps.server.feed import Feed, JobChanged, PreviewShown, ResultCame, StepTold
from apps.server.idempotency import RequestKey
from apps.server.journal import Journal, KeyReused
from apps.server.live_job import LiveJob
from apps.server.metrics import Metrics
from apps.server.outlines import outline_of
from apps.server.records import (
    PREVIEWS,
    JobStatus,
    NewJob,
    Outcome,
    StoredJob,
    TaskResult,
    kind_of,
    record_of,
    task_name,
)
from apps.server.settings import ServerSection
from core import MultiGPUImageGenerator, Result
from core.engine.job import CANCELLED, Job
from core.engine.snapshot import EngineSnapshot
from core.errors import MultiGPUError, StorageError
from core.events import Event, TaskPreview, TaskProgress, TaskStarted, WorkerState
from core.tasks import Status

JOBS = "jobs"  # the folder of results, by job
THUMBNAILS = "thumbnails"  # and of small copies of them, which may be missing
DISK_PAUSE = 2.0  # seconds until a disk that refused is asked again
SWEEP_PAUSE = 600.0  # seconds between looks for jobs whose time is up
FORGET_AT_ONCE = 100
SNAPSHOT_PATIENCE = 5.0  # seconds for the engine's thread to tell how things stand
GONE = ("given up", "stopped", "stopping", "drained")  # states of workers that work at nothing
DISK_REFUSED = "The output folder takes no results."
DEFECT = "The server had an error while it worked on this task; its log says more."


class Service:
    """The daemon behind its routes.

    Args:
        generator: draws, edits and scores; with an output folder, which is the daemon's.
        journal: in the same folder.

    Attributes:
        draining: no job is accepted any more.
        sweepers: remove what is old and not the service's own; called in threads, now and then.
        metrics: counted here as things happen.
        seconds: how long tasks take, learned from their results.
        disk_refusal: what the disk said when it last refused something; None once it did not.
        workers: what each worker last said of itself, by name.
        feed: tells callers of their jobs as things happen.
    """

    def __init__(
        self, generator: MultiGPUImageGenerator, journal: Journal, rules: ServerSection
    ) -> None:
        self.generator = generator
        self.rules = rules
        self.draining = False
        self.sweepers: list[Callable[[], object]] = []
        self.metrics = Metrics()
        self.seconds = TaskSeconds()
        self.disk_refusal: str | None = None
        self.workers: dict[str, str] = {}
        self.feed = Feed()
        self._journal = journal
        self._live: dict[str, LiveJob] = {}
        self._by_engine_job: dict[int, LiveJob] = {}
        self._backlog = Backlog()
        self._accepting: Counter[str] = Counter()  # tasks on their way into the journal, by owner
        self._followers: set[asyncio.Task[None]] = set()
        self._accepts: set[asyncio.Task[tuple[StoredJob, bool]]] = set()
        self._drops: set[asyncio.Task[None]] = set()
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
        self.generator.listener = self._heard_of_worker
        jobs = await asyncio.to_thread(self._journal.open_jobs)
        # Pictures of these may be there, and decide in which memory mode the rest is drawn.
        warm = self.generator.start if jobs else self.generator.warm
        try:
            await asyncio.to_thread(warm)
        except MultiGPUError as error:
            self._feeder.shutdown()
            await asyncio.to_thread(self._journal.close)
            raise error
        for record in await asyncio.to_thread(self._journal.newest_results, 256):
            self._learn(record)
        for stored in jobs:
            live = LiveJob(stored, self._journal.results(stored.number))
            live.to_be_cancelled = stored.status == "cancelled"
            live.update(status="running" if stored.started else "queued")
            self._take(live, self._journal.open_tasks(stored.number))
        if jobs:
            logger.info(f"Jobs of an earlier run that go on: {len(jobs)}.")
        self._sweeper = asyncio.create_task(self._sweep())

    # -- for routes ------------------------------------------------------------

    async def submit(self, job: NewJob) -> tuple[StoredJob, bool]:
        """Accept a job; on return it survives whatever comes.

        It is accepted, too, if who waits for it goes away meanwhile.

        Returns:
            The job, and whether it is new: False for one that came before under its key.

        Raises:
            ApiError: 400 for more tasks than are ever taken, 409 for a key that belongs to another
                request, 429 where too much waits, 503 while the daemon leaves, 507 where the disk
                takes nothing more.
        """
        if (known := await self.known(job.caller, job.key)) is None:
            accept = asyncio.create_task(self._accept(job))
            self._accepts.add(accept)
            accept.add_done_callback(self._accepts.discard)
            return await asyncio.shield(accept)
        return known, False

    async def known(self, caller: str, key: RequestKey) -> StoredJob | None:
        """The job that came before under an idempotency key.

        Raises:
            ApiError: 409: the key came with another request.
        """
        if key.key is None:
            return None
        found = await asyncio.to_thread(self._journal.with_key, caller, key.key)
        if found is None:
            return None
        stored, known_hash = found
        if known_hash != key.hash:
            raise _key_reused()
        live = self._live.get(stored.id)
        return live.stored if live else stored

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
        """A job that has not ended."""
        return self._live.get(id)

    async def followed(self, job: StoredJob) -> LiveJob:
        """A job to be followed to its end, with the results that it has; it may have ended."""
        while (live := self._live.get(job.id)) is None:
            job = await self.find(job.id, job.caller)
            if job.has_ended:
                return LiveJob(job, await self.results_after(job, 0, job.total))
            if self._accepts:  # it is in the journal, and about to be taken
                await asyncio.wait(self._accepts, return_when=asyncio.FIRST_COMPLETED)
        return live

    def lives(self) -> list[LiveJob]:
        """All jobs that have not ended."""
        return list(self._live.values())

    def live_by_engine_job(self, number: int) -> LiveJob | None:
        """A job that has not ended, by its number in the engine."""
        return self._by_engine_job.get(number)

    async def jobs(
        self,
        caller: str,
        before: int | None = None,
        limit: int = 100,
        status: JobStatus | None = None,
    ) -> list[StoredJob]:
        """The newest jobs of a caller, newest first; see `Journal.jobs`.

        Args:
            status: only jobs that are in it.
        """
        if status in ("queued", "running"):
            lives = [live.stored for live in reversed(self._live.values())]
            found = (
                s
                for s in lives
                if (s.caller, s.status) == (caller, status)
                and (before is None or s.number < before)
            )
            return [stored for stored, _ in zip(found, range(limit), strict=False)]
        stored = await asyncio.to_thread(self._journal.jobs, caller, before, limit, status)
        return [self._live[job.id].stored if job.id in self._live else job for job in stored]

    async def results(
        self, job: StoredJob, first: int = 0, limit: int = 100, success: bool | None = None
    ) -> list[TaskResult]:
        """Results of a job in the order of its tasks; see `Journal.results_by_position`."""
        read = self._journal.results_by_position
        return await asyncio.to_thread(read, job.number, first, limit, success)

    async def results_after(self, job: StoredJob, place: int, limit: int = 100) -> list[TaskResult]:
        """Results of a job in the order in which they came, from the one after `place` on."""
        return await asyncio.to_thread(self._journal.results, job.number, place, limit)

    async def results_of(
        self,
        caller: str,
        before: tuple[int, int] | None = None,
        limit: int = 100,
        outcome: Outcome | None = None,
        kind: str | None = None,
        words: str | None = None,
    ) -> list[tuple[StoredJob, TaskResult, dict[str, Any]]]:
        """Results of all jobs of a caller with their tasks; see `Journal.results_of`."""
        read = self._journal.results_of
        return await asyncio.to_thread(read, caller, before, limit, outcome, kind, words)

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
        try:
            await asyncio.wrap_future(self._journal.cancel(job.number))
        except StorageError as error:
            live.to_be_cancelled = False
            raise self._disk_is_full(error) from None
        if live.engine_job is not None:
            live.engine_job.cancel()
        live.tell()
        self._tell_of(live)
        return live.stored

    async def drop(self, job: StoredJob) -> None:
        """Cancel a job, and forget it with all that is kept of it once it has ended."""
        await self.cancel(job)
        dropping = asyncio.create_task(self._drop(job))
        self._drops.add(dropping)
        dropping.add_done_callback(self._drops.discard)

    async def _drop(self, job: StoredJob) -> None:
        live = self._live.get(job.id)
        try:
            if live is not None:
                await live.end_of_it()
            await self._forget([job])
        except ApiError:
            return  # the daemon ends; the next one has no follower of the job either
        except MultiGPUError as error:
            logger.warning(f"{job.id} cannot be removed now: {error}")

    @property
    def most_tasks(self) -> int:
        """How many tasks a job may have."""
        rules = self.rules
        return min(rules.max_tasks_per_job, rules.max_waiting_per_key, rules.max_waiting)

    def check_size(self, tasks: int) -> None:
        """Refuse a job that there is never room for.

        Raises:
            ApiError: 400.
        """
        most = self.most_tasks
        if tasks > most:
            message = f"tasks: a job may have {most}, and this one has {tasks}."
            raise ApiError(400, message, "too_many_tasks", "tasks")

    def waiting(self, owner: str | None = None) -> int:
        """Tasks without a result, of one owner (see `owner_of`) or of all."""
        accepting = self._accepting[owner] if owner else self._accepting.total()
        return self._backlog.waiting(owner).total() + accepting

    def queue(self) -> dict[str, int]:
        """Tasks without a result, by kind."""
        return dict(self._backlog.waiting())

    @property
    def open_jobs(self) -> int:
        """Jobs that have not ended."""
        return len(self._live)

    @property
    def workers_at_work(self) -> int:
        """Workers that take tasks, or will once they have loaded."""
        return sum(state not in GONE for state in self.workers.values())

    def estimate(self, job: StoredJob) -> Estimate | None:
        """When a job is expected to begin and to end; None for one that has ended."""
        if job.has_ended:
            return None
        share, backlog = _share_of(job), self._backlog
        before, own = backlog.before(share, job.number), backlog.of(share, job.number)
        return estimate(share, before, own, backlog.shares, self.seconds, self.workers_at_work)

    async def snapshot(self) -> EngineSnapshot:
        """How workers and models stand.

        Raises:
            TimeoutError: the engine does not answer.
        """
        told: Future[EngineSnapshot] = self.generator.snapshot()
        return await asyncio.wait_for(asyncio.wrap_future(told), SNAPSHOT_PATIENCE)

    # -- the end -----------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Accept nothing more, and work on what waits for so many seconds at most."""
        self.draining = True
        if self._accepts:
            await asyncio.wait(self._accepts)
        if self._followers:
            await asyncio.wait(self._followers, timeout=timeout)
        self._let_followers_go()

    async def close(self) -> None:
        """Stop the workers. What has no result waits in the journal for the next start."""
        self.draining = self._leaving = True
        self._let_followers_go()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.to_thread(self.generator.abandon)
        await asyncio.to_thread(self.generator.stop)
        if self._followers:
            await asyncio.wait(self._followers)
        if self._drops:
            await asyncio.wait(self._drops)
        self._feeder.shutdown()
        await asyncio.to_thread(self._journal.close)

    def _let_followers_go(self) -> None:
        self.feed.close()
        for live in list(self._live.values()):
            live.leave()

    # -- acceptance ------------------------------------------------------------------

    async def _accept(self, job: NewJob) -> tuple[StoredJob, bool]:
        self._check_room(job)
        count, owner = len(job.tasks), owner_of(job)
        self._accepting[owner] += count  # before the wait: others ask meanwhile
        try:
            stored, is_new = await asyncio.wrap_future(self._journal.accept(job))
        except KeyReused:
            raise _key_reused() from None
        except StorageError as error:
            raise self._disk_is_full(error) from None
        finally:
            self._accepting[owner] -= count
            if not self._accepting[owner]:
                del self._accepting[owner]
        if is_new:
            self.metrics.accepted(count)
            for position in job.refused:
                self.metrics.ended(kind_of(job.tasks[position]), "failed")
            if not stored.has_ended:
                refused = self._journal.results(stored.number) if job.refused else []
                tasks = [(i, t) for i, t in enumerate(job.tasks) if i not in job.refused]
                self._take(LiveJob(stored, refused), tasks)
            self.feed.tell(stored.caller, JobChanged(stored))
        return stored, is_new

    def _check_room(self, job: NewJob) -> None:
        if self.draining:
            raise leaving("The server is about to stop and takes no new jobs.")
        count = len(job.tasks)
        self.check_size(count)
        for owner, most in (
            (owner_of(job), self.rules.max_waiting_per_key),
            (None, self.rules.max_waiting),
        ):
            waiting = self.waiting(owner)
            if waiting + count > most:
                seconds = self._seconds_until_room(owner, waiting + count - most)
                whose = "of yours " if owner is not None else ""
                raise ApiError(
                    429,
                    f"{waiting} tasks {whose}wait already, and {most} may. There should be room "
                    f"for {count} more in {seconds} s.",
                    "rate_limit_exceeded",
                    type="rate_limit_error",
                    headers={"Retry-After": str(seconds)},
                )

    def _seconds_until_room(self, owner: str | None, excess: int) -> int:
        tasks = self._backlog.waiting(owner)
        total = self.seconds.total(tasks)
        each = None if total is None or not tasks else total / tasks.total()
        owners = 1 if owner is None else self._backlog.owners
        return retry_after(excess, each, self.workers_at_work, owners)

    def _disk_is_full(self, error: StorageError) -> ApiError:
        self.disk_refusal = str(error)
        return ApiError(507, str(error), "insufficient_storage", type=SERVER)

    # -- a job's way ---------------------------------------------------------------

    def _take(self, live: LiveJob, tasks: Sequence[tuple[int, dict[str, object]]]) -> None:
        """Work on a job from now on.

        Args:
            tasks: those without a result, by position. They are not kept: the journal has them.
        """
        stored = live.stored
        live.open = {task_name(task, place): outline_of(place, task) for place, task in tasks}
        self._live[stored.id] = live
        kinds = Counter(outline.kind for outline in live.open.values())
        self._backlog.add(_share_of(stored), stored.number, kinds)
        follower = asyncio.create_task(self._follow(live))
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)

    async def _follow(self, live: LiveJob) -> None:
        """Bring a job to its end, whatever the disk says meanwhile."""
        error = None
        while not self._leaving:
            try:
                if error is not None:
                    await self._end_without(live, error, "failed")
                elif live.to_be_cancelled:
                    await self._end_without(live, CANCELLED, "interrupted")
                else:
                    await self._work_on(live)
                if live.ended:
                    self._live.pop(live.stored.id, None)
                    self._tell_of(live)
                    return
                refusal = DISK_REFUSED
            except StorageError as refused:
                refusal = str(refused)
            except Exception:
                logger.exception(f"{live.stored.id} cannot go on; this is a defect.")
                error = DEFECT
                if live.engine_job is not None:
                    live.engine_job.cancel(at_once=True)
                continue
            finally:
                if live.engine_job is not None:
                    self._by_engine_job.pop(live.engine_job.number, None)
            if not self._leaving:
                await self._wait_for_the_disk(live, refusal)

    async def _wait_for_the_disk(self, live: LiveJob, refusal: str) -> None:
        if self.disk_refusal is None:
            logger.error(f"Jobs wait for the disk: {refusal}")
        self.disk_refusal = live.waits_for = refusal
        live.running.clear()
        live.tell()
        self._tell_of(live)
        await asyncio.sleep(DISK_PAUSE)
        live.waits_for = None

    async def _work_on(self, live: LiveJob) -> None:
        """Have a job's open tasks done. Those that the disk refused have no result afterwards."""
        feed = self._loop.run_in_executor(self._feeder, self._feed, live)
        engine_job, places = await feed
        live.engine_job = engine_job
        self._by_engine_job[engine_job.number] = live
        if live.to_be_cancelled:
            engine_job.cancel()
        async for portion in engine_job.portions():
            records = [
                (places[result.position][0], record_of(result, *places[result.position]))
                for result in portion
                if self._counts(result, live)
            ]
            await self._settle(live, records)

    def _counts(self, result: Result, live: LiveJob) -> bool:
        """Whether this is what becomes of a task, and not of its try by this daemon alone."""
        if result.status == "interrupted":
            return live.to_be_cancelled
        if result.success or result.cause != "storage":
            return True
        self.disk_refusal = self.disk_refusal or result.error
        return False

    def _feed(self, live: LiveJob) -> tuple[Job, list[tuple[int, str]]]:
        """Hand open tasks to the generator; in the feeder's thread, which may wait for the disk.

        Returns:
            Its handle, and place in the job and kind of each task.
        """
        tasks = self._journal.open_tasks(live.stored.number)
        job = self._submit(live, [_named(task, position) for position, task in tasks])
        return job, [(position, kind_of(task)) for position, task in tasks]

    def _submit(self, live: LiveJob, inputs: list[dict[str, object]]) -> Job:
        stored = live.stored
        try:
            return self.generator.submit(
                inputs,
                stored.priority,
                owner_of(stored),
                partial(self._heard, live),
                stored.metadata.get(PREVIEWS, 0),
            )
        except StorageError:
            raise
        except MultiGPUError as error:
            refused = [
                Result(i, task_name(task, i), "failed", None, error=str(error))
                for i, task in enumerate(inputs)
            ]
            job = Job(0, lambda *_: None, lambda *_: None, refused)
            job.finish()
            return job

    async def _end_without(self, live: LiveJob, why: str, status: Status) -> None:
        """Give the open tasks of a job that no worker has a result that says why."""
        tasks = await asyncio.to_thread(self._journal.open_tasks, live.stored.number)
        records = []
        for position, task in tasks:
            result = Result(position, task_name(task, position), status, None, error=why)
            records.append((position, record_of(result, position, kind_of(task))))
        await self._settle(live, records)

    async def _settle(self, live: LiveJob, records: list[tuple[int, dict[str, Any]]]) -> None:
        """Record results, however long the disk takes: nobody has them but this."""
        stored, started = live.stored, live.started
        while records or stored.succeeded + stored.failed == stored.total:
            settle = self._journal.settle
            future = settle(stored.number, records, live.to_be_cancelled, started)
            try:
                settled = await asyncio.wrap_future(future)
            except StorageError as refused:
                if self._leaving:
                    raise
                await self._wait_for_the_disk(live, str(refused))
                continue
            self.disk_refusal = None
            live.add(settled)
            for one in settled.results:
                self._count(live, one)
                self.feed.tell(stored.caller, ResultCame(settled.job, one))
            return

    def _count(self, live: LiveJob, one: TaskResult) -> None:
        record, stored = one.result, live.stored
        kind = str(record["kind"])
        self._backlog.settle(_share_of(stored), stored.number, kind)
        self.metrics.ended(kind, str(record["status"]))
        if record["success"]:
            self.metrics.took(kind, float(record["elapsed"]))
            self._learn(record)

    def _learn(self, record: Mapping[str, Any]) -> None:
        self.seconds.learn(str(record["kind"]), float(record["elapsed"]))

    def _heard(self, live: LiveJob, event: Event) -> None:
        """What the engine's thread tells of a job's tasks."""
        if isinstance(event, TaskStarted | TaskProgress):
            self._in_the_loop(partial(self._note, live, event))
        elif isinstance(event, TaskPreview):
            with suppress(OSError):  # it is not missed
                content = Path(event.path).read_bytes()  # some 10 KB, gone after this call
                self._in_the_loop(partial(self._show, live, event, content))

    def _tell_of(self, live: LiveJob) -> None:
        self.feed.tell(live.stored.caller, JobChanged(live.stored))

    def _heard_of_worker(self, event: Event) -> None:
        """What the engine's thread tells of workers."""
        if isinstance(event, WorkerState):
            self._in_the_loop(partial(self.workers.__setitem__, event.worker, event.state))

    def _in_the_loop(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    def _note(self, live: LiveJob, event: TaskStarted | TaskProgress) -> None:
        steps = (event.done, event.total) if isinstance(event, TaskProgress) else (0, 0)
        is_first = event.task_id not in live.running
        if running := live.note(event.task_id, event.worker, *steps):
            now = time.time()
            if is_first and isinstance(event, TaskStarted):
                self.metrics.waited(running.outline.kind, now - live.stored.created)
            was_queued = live.stored.status == "queued"
            live.began(now)
            if was_queued:
                self._tell_of(live)
            self.feed.tell(live.stored.caller, StepTold(live.stored.id, running))

    def _show(self, live: LiveJob, event: TaskPreview, content: bytes) -> None:
        if preview := live.show(event.task_id, event.step, event.total, content):
            self.feed.tell(live.stored.caller, PreviewShown(live.stored.id, preview))

    # -- what is old ---------------------------------------------------------------

    async def _sweep(self) -> None:
        """Remove jobs, with all that is kept of them, when their time is up."""
        while True:
            try:
                await self.forget_ended(time.time() - 3600 * self.rules.keep_results)
                for sweeper in self.sweepers:
                    await asyncio.to_thread(sweeper)
            except MultiGPUError as error:
                logger.warning(f"Old jobs cannot be removed now: {error}")
            except Exception:
                logger.exception("Old jobs cannot be removed; this is a defect.")
            await asyncio.sleep(min(SWEEP_PAUSE, 900 * self.rules.keep_results))

    async def forget_ended(self, before: float) -> None:
        """Forget jobs that ended before a Unix time, with their results.

        Pictures go first and the journal last, so that a crash leaves nothing over.
        """
        while True:
            read = self._journal.ended_before
            jobs = await asyncio.to_thread(read, before, FORGET_AT_ONCE)
            if not jobs:
                return
            await self._forget(jobs)

    async def _forget(self, jobs: Sequence[StoredJob]) -> None:
        await asyncio.to_thread(self._remove_results, jobs)
        await asyncio.wrap_future(self._journal.forget([job.number for job in jobs]))

    def _remove_results(self, jobs: Sequence[StoredJob]) -> None:
        for job in jobs:
            for folder in (JOBS, THUMBNAILS):
                shutil.rmtree(self.folder / folder / job.id, ignore_errors=True)
            self.generator.forget(self._journal.output_paths(job.number))


def _named(task: dict[str, object], position: int) -> dict[str, object]:
    return {**task, "task_id": task_name(task, position)}


def owner_of(job: NewJob | StoredJob) -> str:
    """Who shares the devices with others: a caller, or one command of the machine's own user.

    Each has a part of the devices, and so each may have so many tasks waiting for it.
    """
    command = job.metadata.get("owner")
    return f"{job.caller}/{command}" if command else job.caller


def _share_of(job: StoredJob) -> Share:
    return job.priority, owner_of(job)


def _key_reused() -> ApiError:
    return ApiError(
        409,
        "The Idempotency-Key was used before with another request.",
        "idempotency_key_reused",
        type="idempotency_error",
        headers=DO_NOT_REPEAT,
    )
