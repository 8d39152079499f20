"""Jobs as routes see them: accepted, read, cancelled, and ended with the daemon.

Everything here runs in the event loop, except for what waits for a disk. A job is journalled
before anything is drawn of it (see `apps.server.live_jobs`). What has no result when the daemon
dies gets it from the next one: the generator's own ledger knows what was drawn already.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from loguru import logger

from apps.server.errors import DO_NOT_REPEAT, SERVER, ApiError, leaving, not_found
from apps.server.estimates import Estimate, TaskSeconds, estimate, retry_after
from apps.server.feed import Feed, JobChanged
from apps.server.idempotency import RequestKey
from apps.server.journal import Journal, KeyReused
from apps.server.live_job import LiveJob
from apps.server.live_jobs import LiveJobs
from apps.server.metrics import Metrics
from apps.server.old_jobs import OldJobs
from apps.server.records import (
    JobStatus,
    NewJob,
    Outcome,
    StoredJob,
    TaskResult,
    kind_of,
    owner_of,
    share_of,
)
from apps.server.settings import ServerSection
from apps.server.wanted_jobs import WantedJobs
from core import MultiGPUImageGenerator
from core.engine.snapshot import EngineSnapshot
from core.errors import MultiGPUError, StorageError

SNAPSHOT_PATIENCE = 20.0  # seconds for the engine's thread to tell how things stand
GONE = ("given up", "stopped", "stopping", "drained")  # states of workers that work at nothing


class Service:
    """The daemon behind its routes.

    Args:
        generator: draws, edits and scores; with an output folder, which is the daemon's.
        journal: in the same folder.

    Attributes:
        draining: no job is accepted any more.
        metrics: counted here as things happen.
        feed: tells callers of their jobs as things happen.
    """

    def __init__(
        self, generator: MultiGPUImageGenerator, journal: Journal, rules: ServerSection
    ) -> None:
        self.generator = generator
        self.rules = rules
        self.draining = False
        self.metrics = Metrics()
        self.feed = Feed()
        self._journal = journal
        self._live = LiveJobs(generator, journal, self.metrics, self.feed)
        self._old = OldJobs(generator, journal, rules.keep_results)
        self._accepting: Counter[str] = Counter()  # tasks on their way into the journal, by owner
        self._accepts: set[asyncio.Task[tuple[StoredJob, bool]]] = set()
        self._drops: set[asyncio.Task[None]] = set()

    @property
    def folder(self) -> Path:
        """Where results lie."""
        return self.generator.output_folder

    @property
    def sweepers(self) -> list[Callable[[], object]]:
        """They remove what is old and not the service's own; called in threads, now and then."""
        return self._old.sweepers

    @property
    def wanted(self) -> WantedJobs:
        """Jobs whose results somebody is about to take, which are kept until then."""
        return self._old.wanted

    @property
    def seconds(self) -> TaskSeconds:
        """How long tasks take, learned from their results."""
        return self._live.seconds

    @property
    def disk_refusal(self) -> str | None:
        """What the disk said when it last refused something; None once it did not."""
        return self._live.disk_refusal

    @property
    def workers(self) -> dict[str, str]:
        """What each worker last said of itself, by name."""
        return self._live.workers

    async def start(self) -> None:
        """Start the workers, and carry on with what was accepted and not ended."""
        self._live.start()
        jobs = await asyncio.to_thread(self._journal.open_jobs)
        # Pictures of these may be there, and decide in which memory mode the rest is drawn.
        warm = self.generator.start if jobs else self.generator.warm
        try:
            await asyncio.to_thread(warm)
        except MultiGPUError as error:
            self._live.close()
            await asyncio.to_thread(self._journal.close)
            raise error
        for record in await asyncio.to_thread(self._journal.newest_results, 256):
            self._live.learn(record)
        for stored in jobs:
            live = LiveJob(stored, self._journal.results(stored.number))
            live.to_be_cancelled = stored.status == "cancelled"
            live.update(status="running" if stored.started else "queued")
            self._live.take(live, self._journal.open_tasks(stored.number))
        if jobs:
            logger.info(f"Jobs of an earlier run that go on: {len(jobs)}.")
        self._old.start()

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
        return self._live.all()

    def live_by_engine_job(self, number: int) -> LiveJob | None:
        """A job that has not ended, by its number in the engine."""
        return self._live.by_engine_job(number)

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
            lives = [live.stored for live in reversed(self._live.all())]
            found = (
                s
                for s in lives
                if (s.caller, s.status) == (caller, status)
                and (before is None or s.number < before)
            )
            return [stored for stored, _ in zip(found, range(limit), strict=False)]
        stored = await asyncio.to_thread(self._journal.jobs, caller, before, limit, status)
        return [live.stored if (live := self._live.get(job.id)) else job for job in stored]

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
        self._live.tell_of(live)
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
            await self._old.forget([job])
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
        return self._live.backlog.waiting(owner).total() + accepting

    def queue(self) -> dict[str, int]:
        """Tasks without a result, by kind."""
        return dict(self._live.backlog.waiting())

    def waits_for(self, live: LiveJob) -> str | None:
        """What keeps a job from going on, such as a full disk or drained workers; None mostly."""
        return self._live.waits_for(live)

    @property
    def open_jobs(self) -> int:
        """Jobs that have not ended."""
        return len(self._live.all())

    @property
    def workers_at_work(self) -> int:
        """Workers that take tasks, or will once they have loaded."""
        return sum(state not in GONE for state in self.workers.values())

    def estimate(self, job: StoredJob) -> Estimate | None:
        """When a job is expected to begin and to end; None for one that has ended."""
        if job.has_ended:
            return None
        share, backlog = share_of(job), self._live.backlog
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
        await self._live.wait(timeout)
        self._let_followers_go()

    async def close(self) -> None:
        """Stop the workers. What has no result waits in the journal for the next start."""
        self.draining = True
        self._live.leave()
        self._let_followers_go()
        self._old.stop()
        await asyncio.to_thread(self.generator.abandon)
        await asyncio.to_thread(self.generator.stop)
        await self._live.wait()
        if self._drops:
            await asyncio.wait(self._drops)
        self._live.close()
        await asyncio.to_thread(self._journal.close)

    async def forget_ended(self, before: float) -> None:
        """Forget jobs that ended before a Unix time, with their results."""
        await self._old.forget_ended(before)

    def _let_followers_go(self) -> None:
        self.feed.close()
        for live in self._live.all():
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
                self._live.take(LiveJob(stored, refused), tasks)
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
        tasks = self._live.backlog.waiting(owner)
        total = self.seconds.total(tasks)
        each = None if total is None or not tasks else total / tasks.total()
        owners = 1 if owner is None else self._live.backlog.owners
        return retry_after(excess, each, self.workers_at_work, owners)

    def _disk_is_full(self, error: StorageError) -> ApiError:
        self._live.disk_refusal = str(error)
        return ApiError(507, str(error), "insufficient_storage", type=SERVER)


def _key_reused() -> ApiError:
    return ApiError(
        409,
        "The Idempotency-Key was used before with another request.",
        "idempotency_key_reused",
        type="idempotency_error",
        headers=DO_NOT_REPEAT,
    )
