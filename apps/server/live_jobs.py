"""Jobs that have not ended, on their way: through the generator, and into the journal.

Everything here runs in the event loop, except for what waits for a disk.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from apps.server.estimates import Backlog, TaskSeconds
from apps.server.feed import Feed, JobChanged, PreviewShown, ResultCame, StepTold
from apps.server.journal import Journal
from apps.server.live_job import LiveJob
from apps.server.metrics import Metrics
from apps.server.outlines import outline_of
from apps.server.records import (
    PREVIEWS,
    TaskResult,
    kind_of,
    owner_of,
    record_of,
    share_of,
    task_name,
)
from core import MultiGPUImageGenerator, Result
from core.engine.job import CANCELLED, Job
from core.errors import MultiGPUError, StorageError
from core.events import Event, TaskPreview, TaskProgress, TaskStarted, TasksWait, WorkerState
from core.tasks import Status

DISK_PAUSE = 2.0  # seconds until a disk that refused is asked again
DISK_REFUSED = "The output folder takes no results."
DEFECT = "The server had an error while it worked on this task; its log says more."


class LiveJobs:
    """Brings jobs to their ends. The journal gets each result, and has what is still to be done.

    Args:
        metrics: counted here as things happen.
        feed: told of them, for callers.

    Attributes:
        backlog: tasks without a result.
        seconds: how long tasks take, learned from their results.
        disk_refusal: what the disk said when it last refused something; None once it did not.
        workers: what each worker last said of itself, by name.
    """

    def __init__(
        self, generator: MultiGPUImageGenerator, journal: Journal, metrics: Metrics, feed: Feed
    ) -> None:
        self._generator = generator
        self._journal = journal
        self._metrics = metrics
        self._feed = feed
        self.backlog = Backlog()
        self.seconds = TaskSeconds()
        self.disk_refusal: str | None = None
        self.workers: dict[str, str] = {}
        self._waits: dict[str, str] = {}  # by kind: why no worker may be given such tasks
        self._by_id: dict[str, LiveJob] = {}
        self._by_engine_job: dict[int, LiveJob] = {}
        self._followers: set[asyncio.Task[None]] = set()
        self._feeder = ThreadPoolExecutor(1, thread_name_prefix="feeder")
        self._leaving = False

    def start(self) -> None:
        """Hear of workers, in the loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._generator.listener = self._heard_of_worker

    def get(self, id: str) -> LiveJob | None:
        """A job that has not ended."""
        return self._by_id.get(id)

    def all(self) -> list[LiveJob]:
        """All of them, in the order of their acceptance."""
        return list(self._by_id.values())

    def by_engine_job(self, number: int) -> LiveJob | None:
        """A job by its number in the engine."""
        return self._by_engine_job.get(number)

    def waits_for(self, live: LiveJob) -> str | None:
        """What keeps a job from going on, such as a full disk or drained workers; None mostly."""
        if live.waits_for is not None or not self._waits:
            return live.waits_for
        left = Counter(self.backlog.of(share_of(live.stored), live.stored.number))
        left.subtract(running.outline.kind for running in live.running.values())
        return next((why for kind, why in self._waits.items() if left[kind] > 0), None)

    def take(self, live: LiveJob, tasks: Sequence[tuple[int, dict[str, object]]]) -> None:
        """Work on a job from now on.

        Args:
            tasks: those without a result, by position. They are not kept: the journal has them.
        """
        stored = live.stored
        live.open = {task_name(task, place): outline_of(place, task) for place, task in tasks}
        self._by_id[stored.id] = live
        kinds = Counter(outline.kind for outline in live.open.values())
        self.backlog.add(share_of(stored), stored.number, kinds)
        follower = asyncio.create_task(self._follow(live))
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)

    def tell_of(self, live: LiveJob) -> None:
        """Tell its caller how a job stands."""
        self._feed.tell(live.stored.caller, JobChanged(live.stored))

    def learn(self, record: Mapping[str, Any]) -> None:
        """Note how long a task took."""
        self.seconds.learn(str(record["kind"]), float(record["elapsed"]))

    # -- the end -------------------------------------------------------------------

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until none is followed any more, for so many seconds at most."""
        if self._followers:
            await asyncio.wait(self._followers, timeout=timeout)

    def leave(self) -> None:
        """Have none go further than it is; the next process goes on with it."""
        self._leaving = True

    def close(self) -> None:
        """End the thread that hands tasks in."""
        self._feeder.shutdown()

    # -- a job's way ---------------------------------------------------------------

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
                    self._by_id.pop(live.stored.id, None)
                    self.tell_of(live)
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
        self.tell_of(live)
        await asyncio.sleep(DISK_PAUSE)
        live.waits_for = None

    async def _work_on(self, live: LiveJob) -> None:
        """Have a job's open tasks done. Those that the disk refused have no result afterwards."""
        handed_in = self._loop.run_in_executor(self._feeder, self._hand_in, live)
        engine_job, places = await handed_in
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

    def _hand_in(self, live: LiveJob) -> tuple[Job, list[tuple[int, str]]]:
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
            return self._generator.submit(
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
                self._feed.tell(stored.caller, ResultCame(settled.job, one))
            return

    def _count(self, live: LiveJob, one: TaskResult) -> None:
        record, stored = one.result, live.stored
        kind = str(record["kind"])
        self.backlog.settle(share_of(stored), stored.number, kind)
        self._metrics.ended(kind, str(record["status"]))
        if record["success"]:
            self._metrics.took(kind, float(record["elapsed"]))
            self.learn(record)

    def _heard(self, live: LiveJob, event: Event) -> None:
        """What the engine's thread tells of a job's tasks."""
        if isinstance(event, TaskStarted | TaskProgress):
            self._in_the_loop(partial(self._note, live, event))
        elif isinstance(event, TaskPreview):
            with suppress(OSError):  # it is not missed
                content = Path(event.path).read_bytes()  # some 10 KB, gone after this call
                self._in_the_loop(partial(self._show, live, event, content))

    def _heard_of_worker(self, event: Event) -> None:
        """What the engine's thread tells of workers."""
        if isinstance(event, WorkerState):
            self._in_the_loop(partial(self.workers.__setitem__, event.worker, event.state))
        elif isinstance(event, TasksWait):
            self._in_the_loop(partial(self._note_wait, event.model, event.reason))

    def _in_the_loop(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    def _note_wait(self, kind: str, reason: str | None) -> None:
        if reason is not None:
            self._waits[kind] = reason
        else:
            self._waits.pop(kind, None)
        for live in self.all():
            live.tell()
            self.tell_of(live)

    def _note(self, live: LiveJob, event: TaskStarted | TaskProgress) -> None:
        steps = (event.done, event.total) if isinstance(event, TaskProgress) else (0, event.steps)
        is_first = event.task_id not in live.running
        if running := live.note(event.task_id, event.worker, *steps):
            now = time.time()
            if is_first and isinstance(event, TaskStarted):
                self._metrics.waited(running.outline.kind, now - live.stored.created)
            was_queued = live.stored.status == "queued"
            live.began(now)
            if was_queued:
                self.tell_of(live)
            self._feed.tell(live.stored.caller, StepTold(live.stored.id, running))

    def _show(self, live: LiveJob, event: TaskPreview, content: bytes) -> None:
        if preview := live.show(event.task_id, event.step, event.total, content):
            self._feed.tell(live.stored.caller, PreviewShown(live.stored.id, preview))


def _named(task: dict[str, object], position: int) -> dict[str, object]:
    return {**task, "task_id": task_name(task, position)}
