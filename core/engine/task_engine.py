"""What a run asks of an engine: workers here (`core.engine.engine`), or a daemon's.

Both do the same with jobs: take them from any thread, and decide about them in one of their own.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from core.engine.job import INTERRUPTED, Job
from core.engine.job_run import JobRun
from core.engine.recorder import Recorder, Refusal
from core.engine.retry import RetryRules
from core.engine.task_state import TaskState
from core.events import Listener
from core.intake.admission import Admitted
from core.lora_stack import CheckedLora
from core.store.ledger_entry import result_of
from core.tasks import Result, Status

if TYPE_CHECKING:  # an engine elsewhere needs nothing of these
    from core.engine.served_model import ServedModel
    from core.engine.snapshot import EngineSnapshot

CLOSED = "Not tried: the generator is closed."


class TaskEngine(ABC):
    """Takes jobs, and gives each of their tasks its one result.

    Args:
        rules: how often a task is tried again.
        listener: told of the tasks of jobs without a listener of their own.
    """

    def __init__(self, rules: RetryRules, listener: Listener) -> None:
        self._retry_rules = rules
        self._listener = listener
        self._last_job = 0
        self._gone = False  # the thread has ended, or is about to, and reads no command more
        # So that nobody hands something over meanwhile. What it answers then may hand over itself.
        self._going = threading.RLock()

    # -- called from other threads -----------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Begin to work; returns at once."""

    @abstractmethod
    def add_model(self, model: "ServedModel") -> None:
        """Serve one more model."""

    @abstractmethod
    def warm(self, name: str) -> None:
        """Have a model loaded before there are tasks for it."""

    @abstractmethod
    def unload(self, name: str) -> None:
        """Let a model go for which no task waits."""

    @abstractmethod
    def load_loras(
        self, name: str, loras: Sequence[CheckedLora], pin: bool = False
    ) -> "Future[None]":
        """Have a model's workers hold LoRAs before tasks ask for them.

        Args:
            pin: for good, and those workers, too, that load the model later.

        Returns:
            Done when workers are about to be told. InputError: they are too many, or nobody has
            the model.
        """

    @abstractmethod
    def unload_loras(
        self, name: str, hashes: Collection[str], paths: Collection[str] = ()
    ) -> "Future[None]":
        """Have no worker of a model hold LoRAs until tasks bring them again.

        Args:
            hashes: of their content.
            paths: where they lie, or lay.
        """

    @abstractmethod
    def drain(self, worker: str) -> None:
        """Give a worker nothing more."""

    @abstractmethod
    def undrain(self, worker: str) -> None:
        """Let a drained worker come back."""

    @abstractmethod
    def snapshot(self) -> "Future[EngineSnapshot]":
        """How workers and models stand."""

    @property
    @abstractmethod
    def lora_counts(self) -> tuple[int, int]:
        """LoRA loads and switches so far."""

    @property
    @abstractmethod
    def device_waits(self) -> list[float]:
        """Seconds for which devices had nothing to do before each of their newest tasks."""

    @property
    @abstractmethod
    def waits_in_step(self) -> list[tuple[float, int]]:
        """For each model whose workers wait for each other: worker-seconds waited, and steps."""

    def submit(
        self,
        admitted: Iterable[Admitted],
        recorder: Recorder,
        settled: Sequence[Result] = (),
        priority: int = 0,
        owner: str | None = None,
        listener: Listener | None = None,
        sealed: bool = True,
        promised: int = 0,
        previews: int = 0,
        told: Callable[[Result], None] | None = None,
    ) -> Job:
        """Take a job.

        Args:
            admitted: its tasks; more may be added until the job is sealed.
            recorder: of its output folder.
            settled: results known before the start.
            priority: jobs of higher priority come first.
            owner: jobs of one owner share that owner's part of the devices; by default each
                job is an owner of its own.
            listener: told of its tasks; called from the engine's thread.
            sealed: no more tasks will be added.
            promised: how many tasks, or results of tasks, will be added whatever becomes of the
                job, which is sealed then; without `sealed`.
            previews: how many previews of each task its listener is told of.
            told: takes each result, and the job keeps none; see `Job`.
        """
        with self._going:
            self._last_job += 1
            number = self._last_job
        tasks = list(admitted)
        job = Job(number, self.stop_job, self.close_job, settled, told)
        job.admit(len(tasks))
        job.promise(promised)
        run = JobRun(
            job,
            recorder,
            self._retry_rules,
            listener or self._listener,
            queue=self._queue,
            withdraw=self._withdraw,
            in_turn=self._hand_over,
            on_finished=self._finished,
            on_storage_error=self._storage_error,
            refusal=self._refusal,
            share=(owner or f"job {number}", priority),
            keeps_results=any(result.success for result in settled),
            previews=previews,
            is_told=listener is not None,
        )
        self._hand_over(lambda: self._take(run, tasks, sealed))
        return job

    def extend(
        self, job: Job, admitted: Iterable[Admitted], settled: Sequence[Result] = ()
    ) -> None:
        """Add tasks to a job that is not sealed yet.

        Args:
            settled: results of other tasks of it, which are not to be tried.
        """
        tasks = list(admitted)
        job.admit(len(tasks) + len(settled))
        self._hand_over(lambda: self._extend(job, tasks, settled))

    @abstractmethod
    def expect(self, job: Job, model: str, tasks: int) -> None:
        """Say how many tasks for a model a job will still be given."""

    def seal(self, job: Job) -> None:
        """Add no more tasks to a job: it is finished when those are that it has."""
        self._hand_over(lambda: self._with_run(job.number, JobRun.seal))

    def stop_job(self, number: int, reason: str) -> None:
        """Start none of a job's waiting tasks any more; safe in a signal handler."""
        self._post(lambda: self._with_run(number, lambda run: run.stop(reason)))

    def close_job(self, number: int, status: Status, reason: str) -> None:
        """Close a job's open tasks now; safe in a signal handler."""
        self._post(lambda: self._with_run(number, lambda run: run.close(status, reason)))

    @abstractmethod
    def stop(self, at_once: bool = False) -> None:
        """End all jobs, and wait until what they wrote is recorded."""

    def hurry(self) -> None:  # noqa: B027 - most have nothing to do
        """Wait no longer for what a stop waits for, if it can be ended at once.

        Safe in a signal handler.
        """

    def _hand_over(self, command: Callable[[], None]) -> None:
        """Run a command in the engine's thread, or here once that is gone. No handler may."""
        with self._going:
            if not self._gone:
                self._post(command)
                return
        command()

    @abstractmethod
    def _post(self, command: Callable[[], None]) -> None:
        """Have the engine's thread run a command; safe in a signal handler."""

    # -- the engine's thread -------------------------------------------------------

    @abstractmethod
    def _runs(self) -> Iterable[JobRun]:
        """The jobs that have not ended; they may end while one goes through them."""

    @abstractmethod
    def _find(self, number: int) -> JobRun | None:
        """The job of a number, unless it has ended."""

    @abstractmethod
    def _work_on(self, run: JobRun) -> None:
        """A job has come."""

    @abstractmethod
    def _queue(self, run: JobRun, task: TaskState) -> None:
        """Let a task wait for a worker."""

    @abstractmethod
    def _withdraw(self, run: JobRun, model: str | None) -> None:
        """Give out none of a job's waiting tasks any more, or none of those for one model."""

    @abstractmethod
    def _finished(self, run: JobRun) -> None:
        """Every task of a job has its result."""

    @abstractmethod
    def _end(self) -> tuple[Status, str] | None:
        """What becomes of all tasks from now on; None while they are worked on."""

    def _refusal(self, admitted: Admitted) -> tuple[Status, str] | None:
        """The result of a task that cannot be tried any more."""
        return self._end()

    def _fitted(self, admitted: Admitted) -> Admitted:
        """A task as the model that is to do it is loaded at this moment."""
        return admitted

    def _take(self, run: JobRun, tasks: Sequence[Admitted], sealed: bool) -> None:
        self._work_on(run)
        self._add(run, tasks)
        end = self._end()
        if end is not None:
            run.close(*end)  # whether sealed or not, nothing more will happen to it
        elif sealed:
            run.seal()

    def _extend(self, job: Job, tasks: Sequence[Admitted], settled: Sequence[Result]) -> None:
        run = self._find(job.number)
        if run is not None:
            run.refuse(settled)
            self._add(run, tasks)
            return
        status, error = job.closed_as or ("interrupted", INTERRUPTED)
        for result in settled:
            job.settle(result)
        for one in tasks:  # it was closed meanwhile
            job.settle(result_of(one, status, error=error))

    def _add(self, run: JobRun, tasks: Sequence[Admitted]) -> None:
        run.add([self._fitted(one) for one in tasks])

    def _with_run(self, number: int, call: Callable[[JobRun], None]) -> None:
        run = self._find(number)
        if run is not None:
            call(run)

    def _close_all(self, status: Status, reason: str) -> None:
        for run in self._runs():
            run.close(status, reason)

    def _storage_error(self, failed: Recorder, refusal: Refusal) -> None:
        """An output folder takes nothing more: all jobs that write there end."""
        reason = f"Not tried: the output folder cannot be written ({refusal})"
        for run in self._runs():
            if run.recorder.folder == failed.folder:
                run.close_for_the_disk(reason)
