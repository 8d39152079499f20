"""A job inside the engine: what becomes of its tasks until each of them has its result.

Used by the engine's thread alone. The engine asks for attempts and says what became of them;
this file decides what that means for a task (done, again, alone, quarantined, failed), has it
recorded, and reports the result when it is.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from loguru import logger

from core.engine import retry
from core.engine.grouping import group_of
from core.engine.job import Job
from core.engine.pending import Pending, Stack
from core.engine.recorder import Attempt, Ending, Recorder, Refusal, Then
from core.engine.retry import Cause, RetryRules
from core.engine.task_state import ActiveAttempt, TaskState
from core.errors import LedgerError, StorageError
from core.events import Listener, TaskEnded, TaskStarted
from core.intake.admission import Admitted
from core.messages import Done, Failed, Lease
from core.tasks import Result, Status

INTERRUPTED = "Not tried: the run was interrupted."


@dataclass(frozen=True)
class WorkerLoss:
    """Why a worker is gone. `hung`: the engine ended it because a task passed its deadline."""

    reason: str
    by_sigkill: bool = False
    hung: bool = False


class JobRun:
    """The tasks of one job.

    Args:
        job: the caller's handle.
        recorder: of the job's output folder.
        rules: how often a task is tried.
        listener: told of tasks that start and end.
        queue: puts a task into the scheduler.
        in_turn: has a call made by the engine's thread, in its turn.
        on_finished: told when every task has its result and no more will come.
        on_storage_error: told of an output folder that takes nothing more.
        refusal: the result of a task that cannot be tried any more, as status and error.
        share: owner and priority of the job.
        keeps_results: some of the job's inputs have results of earlier runs, which stay.
    """

    def __init__(
        self,
        job: Job,
        recorder: Recorder,
        rules: RetryRules,
        listener: Listener,
        queue: Callable[["JobRun", TaskState], None],
        in_turn: Callable[[Callable[[], None]], None],
        on_finished: Callable[["JobRun"], None],
        on_storage_error: Callable[["JobRun", Refusal], None],
        refusal: Callable[[Admitted], tuple[Status, str] | None],
        share: tuple[str, int],
        keeps_results: bool = False,
    ) -> None:
        self.job = job
        self.recorder = recorder
        self.keeps_results = keeps_results
        self.owner, self.priority = share
        self.lanes: dict[str, int] = {}  # of the scheduler, by model
        self._refusal = refusal
        self._rules = rules
        self._listener = listener
        self._queue = queue
        self._in_turn = in_turn
        self._on_finished = on_finished
        self._on_storage_error = on_storage_error
        self._tasks: dict[int, TaskState] = {}  # those without a result
        self._active: dict[str, ActiveAttempt] = {}
        self._leasing = True  # waiting tasks may be given to workers
        self._sealed = False  # no more tasks will be added
        self._finishing = False  # all that is left to do is to write the tables
        self._closed_as: tuple[Status, str] | None = None
        self._stopped_because = INTERRUPTED

    # -- tasks ---------------------------------------------------------------

    @property
    def number(self) -> int:
        return self.job.number

    @property
    def gives_out(self) -> bool:
        """Its waiting tasks may be given to workers."""
        return self._leasing

    @property
    def sealed(self) -> bool:
        return self._sealed

    @property
    def open_tasks(self) -> int:
        """Tasks without a result."""
        return len(self._tasks)

    def add(self, admitted: Iterable[Admitted]) -> None:
        """Tasks more, whose number the job's handle has been told."""
        for one in admitted:
            task = self._tasks[one.position] = TaskState(one)
            refused = self._closed_as or self._refusal(one)
            if refused is None and not self._leasing:
                refused = ("interrupted", self._stopped_because)
            if refused is not None:
                self._settle(task, refused[0], None, refused[1])
            else:
                self._queue(self, task)

    def refuse(self, results: Iterable[Result]) -> None:
        """Tasks more that ended before they were tried; their number the handle has been told."""
        for result in results:
            refused = self._closed_as is None and result.status == "failed"
            self._listener(TaskEnded(result, self.number, refused))
            self.job.settle(result)

    def seal(self) -> None:
        """No more tasks will come."""
        self._sealed = True
        self._finish_if_complete()

    def remake(self, remade: Callable[[Admitted], Admitted]) -> None:
        """Change tasks that nobody has begun, in a way that leaves their work as it is."""
        for task in self._tasks.values():
            if task.attempts == 0:
                task.admitted = remade(task.admitted)

    def waiting_task(self, position: int) -> TaskState:
        """The task at a place of the input; it has no result yet."""
        return self._tasks[position]

    def is_suspect(self, task: TaskState) -> bool:
        """The task must run with nothing else in its worker."""
        return retry.is_suspect(task.history, self._rules)

    # -- attempts ------------------------------------------------------------

    def begin(
        self, task: TaskState, worker: str, answered: Callable[[ActiveAttempt, bool], None]
    ) -> ActiveAttempt:
        """An attempt for a worker; it may be sent once its lease is recorded.

        Args:
            answered: told when it is (True), or that it came to nothing (False).
        """
        lease_id = uuid4().hex[:16]
        admitted = task.admitted
        partial = self.recorder.partial_path(admitted, lease_id)
        task.attempts += 1
        batch = self.recorder.batch
        attempt = Attempt(lease_id, batch, admitted, task.attempts, worker, partial)
        lease = Lease(
            lease_id,
            task.attempts,
            admitted.task,
            admitted.lora_sha256,
            admitted.fingerprint,
            partial,
            admitted.contents.pictures,
            loras_sha256=admitted.contents.loras,
        )
        active = ActiveAttempt(
            self.number, self.recorder, task, attempt, lease, self.is_suspect(task)
        )
        self._active[lease_id] = active
        task.out = (*task.out, active)
        if len(task.out) == 1:
            self.job.began()
        self._listener(TaskStarted(admitted.task_id, worker, self.number))

        def begun(refusal: Refusal | None) -> None:
            active.recorded = refusal is None
            if active.thrown_away:
                self.recorder.discard(attempt)
            elif refusal is not None and lease_id in self._active:
                self._retire(active)
                if not task.out:
                    self._disk_refused(active, refusal)
            answered(active, active.recorded and not active.thrown_away)

        self.recorder.begin(attempt, self._then(begun))
        return active

    def may_copy(self, task: TaskState) -> bool:
        """A second attempt beside the one that is out would do no harm."""
        unharmed = not task.copied and task.history.troubles == 0
        return unharmed and self._leasing and self._sealed and not task.recording

    def done(self, active: ActiveAttempt, message: Done, recorded: Callable[[], None]) -> None:
        """A result is complete: it gets its name, then its record, then it is reported.

        Args:
            recorded: told when it needs the recorder no more.
        """
        task = active.task
        if not self._retire(active):
            recorded()
            return
        if task.recording:  # the other run of this task was faster
            recorded()
            self.recorder.end_lease_alone(active.attempt, "superseded")
            return

        def kept(refusal: Refusal | None) -> None:
            task.recording -= 1
            recorded()
            if refusal is None:
                for late in task.out:
                    self._throw_away(late)
                    self.recorder.end_lease_alone(late.attempt, "superseded")
                self._settle(task, "done", active.attempt.worker, elapsed=message.elapsed)
            elif task.out:  # the other run decides
                self.recorder.end_lease_alone(active.attempt, "storage")
            else:
                self._end_for_storage(active, refusal)

        task.recording += 1
        self.recorder.keep(active.attempt, message, self._then(kept))

    def failed(self, active: ActiveAttempt, message: Failed) -> None:
        """An attempt ended in an error that its worker reported."""
        if not self._retire(active):
            return
        if message.kind == "storage":
            if active.task.out:
                self.recorder.end_lease_alone(active.attempt, "storage")
            else:
                self._end_for_storage(active, StorageError(message.error, fatal=True))
            return
        self._ended(active, message.kind, message.error, message.elapsed)

    def lost(self, active: ActiveAttempt, loss: WorkerLoss, blamed: bool) -> None:
        """The worker of an attempt is gone.

        Args:
            blamed: the task may be why: it was running, or its result was being saved. Otherwise
                it goes again without a mark. Who is to blame among several shows when each has
                run alone; before, nobody is quarantined.
        """
        if not self._retire(active):
            return
        cause: Cause = "sigkill" if loss.by_sigkill else "crash"
        if not blamed:
            cause = "released"
        elif loss.hung:
            cause = "hung"
        self._ended(active, cause, loss.reason)

    def _retire(self, active: ActiveAttempt) -> bool:
        """An attempt is over; False if it does not count any more."""
        active.task.without(active)
        if active.thrown_away:
            self.recorder.discard(active.attempt)
            return False
        del self._active[active.lease_id]
        if not active.task.out:
            self.job.returned()
        return True

    def _throw_away(self, active: ActiveAttempt) -> None:
        active.thrown_away = True
        self._active.pop(active.lease_id, None)

    def _ended(self, active: ActiveAttempt, cause: Cause, error: str, elapsed: float = 0.0) -> None:
        task = active.task
        task.history = task.history.plus(cause, active.alone)
        if cause != "released":
            task.avoid |= {active.attempt.worker}
        if task.out:  # the other run decides
            self.recorder.end_lease_alone(active.attempt, cause)
            return
        decision = retry.after(task.history, self._rules)
        written: str = "crash" if cause in ("crash", "sigkill") else cause
        if decision in ("again", "alone"):
            if cause in retry.PASSING:
                logger.warning(
                    f"{task.admitted.task_id}: {error}; it goes to the back of the queue"
                )
            elif written == "crash":
                written = f"crash: {error}"
            self._record_end(active, Ending(written, "again"), lambda: self._again(task))
            return
        outcome: Literal["failed", "quarantined"] = "failed"
        if decision == "quarantine":
            outcome = "quarantined"
            times = task.history.crashes + task.history.kills
            error = (
                f"It took its worker with it {times} times, the last time alone ({error}). Run "
                "again with --retry-quarantined to try it once more."
            )
        elif cause in retry.PASSING and task.history.failures > 1:
            error += f" (after {task.history.failures} attempts)"
        ending = Ending(written, outcome, error, elapsed)
        worker = active.attempt.worker
        self._record_end(
            active, ending, lambda: self._settle(task, outcome, worker, error, elapsed)
        )

    def _record_end(self, active: ActiveAttempt, ending: Ending, then: Callable[[], None]) -> None:
        task = active.task

        def ended(refusal: Refusal | None) -> None:
            task.recording -= 1
            if refusal is None:
                then()
            else:
                self._disk_refused(active, refusal)

        task.recording += 1
        self.recorder.end(active.attempt, ending, self._then(ended))

    def _again(self, task: TaskState) -> None:
        refused = self._closed_as or self._refusal(task.admitted)
        if refused is not None:
            self._settle(task, refused[0], None, refused[1])
            return
        self._queue(self, task)
        self._close_if_drained()

    # -- an output folder that takes nothing ----------------------------------

    def _end_for_storage(self, active: ActiveAttempt, refusal: Refusal) -> None:
        """A result cannot be kept: that is its task's end, whatever the record says."""
        task, worker = active.task, active.attempt.worker

        def ended(_: Refusal | None) -> None:
            task.recording -= 1
            self._settle(task, "failed", worker, str(refusal))
            self._mind_the_folder(refusal)

        task.recording += 1
        ending = Ending("storage", "failed", str(refusal))
        self.recorder.end(active.attempt, ending, self._then(ended))

    def _disk_refused(self, active: ActiveAttempt, refusal: Refusal) -> None:
        """One result cannot be kept. If none can, to make more would only waste the devices."""
        self.recorder.fail(active.attempt, str(refusal))
        self._settle(active.task, "failed", active.attempt.worker, str(refusal))
        self._mind_the_folder(refusal)

    def _mind_the_folder(self, refusal: Refusal) -> None:
        if isinstance(refusal, LedgerError) or refusal.fatal:
            self._on_storage_error(self, refusal)

    # -- the end -------------------------------------------------------------

    def stop(self, reason: str = INTERRUPTED) -> None:
        """Let what runs finish and give out nothing more."""
        if self._leasing:
            self._leasing, self._stopped_because = False, reason
            self.job.ends_as = self.job.ends_as or ("interrupted", reason)
        self._close_if_drained()

    def close(self, status: Status, reason: str) -> None:
        """Close every open task now, and every one that is added.

        The record keeps these tasks as they are, so that a resumed run tries them. What is being
        recorded at this moment is still reported as what it is.
        """
        self._leasing = False
        # What was promised has its results, too: the job is not finished before it is sealed.
        self._sealed = self._sealed or not self.job.is_promised_more
        self._closed_as = self.job.ends_as = (status, reason)
        self.close_some(lambda _: True, status, reason)
        self._finish_if_complete()

    def close_some(
        self,
        which: Callable[[Admitted], bool],
        status: Status,
        reason: str,
        brief: str | None = None,
    ) -> None:
        """Close some of the open tasks now; results of theirs that still come are thrown away.

        Args:
            brief: the reason for the log, if that has the whole already.
        """
        for active in list(self._active.values()):
            if which(active.admitted):
                self._throw_away(active)
        still_open = [t for t in self._tasks.values() if not t.recording and which(t.admitted)]
        if still_open:
            left = f"{len(still_open)} task{'s' * (len(still_open) > 1)} left"
            level = "ERROR" if status == "failed" and brief is None else "WARNING"
            logger.log(level, f"Stopped with {left}. {brief or reason}")
        for task in still_open:
            self._settle(task, status, None, reason)

    def _settle(
        self,
        task: TaskState,
        status: Status,
        worker: str | None,
        error: str | None = None,
        elapsed: float = 0.0,
    ) -> None:
        admitted = task.admitted
        if self._tasks.pop(admitted.position, None) is None:
            return
        if task.out:
            self.job.returned()
        result = result_of(admitted, status, worker, error, elapsed, task.attempts)
        self._listener(TaskEnded(result, self.number))
        self.job.settle(result)
        self._close_if_drained()
        self._finish_if_complete()

    def _close_if_drained(self) -> None:
        """A job that gives out nothing more ends when nothing of it runs or is being recorded."""
        if self._leasing or self._active or self._closed_as is not None or not self._tasks:
            return
        if not any(task.recording for task in self._tasks.values()):
            self.close("interrupted", self._stopped_because)

    def _finish_if_complete(self) -> None:
        if self._tasks or not self._sealed or self._finishing:
            return
        self._finishing = True

        def written(refusal: Refusal | None) -> None:
            self.job.records_error = refusal
            self._on_finished(self)
            self.job.finish()

        self.recorder.finish(self.job.results_so_far(), self._then(written))

    def _then(self, call: Callable[[Refusal | None], None]) -> Then:
        """A recorder answers in its own thread."""
        return lambda refusal: self._in_turn(lambda: call(refusal))


def result_of(
    admitted: Admitted,
    status: Status,
    worker: str | None = None,
    error: str | None = None,
    elapsed: float = 0.0,
    attempts: int = 0,
) -> Result:
    """The one result of a task."""
    return Result(
        position=admitted.position,
        task_id=admitted.task_id,
        status=status,
        output_path=str(admitted.output.file) if status == "done" else None,
        elapsed=elapsed,
        error=error,
        worker=worker,
        attempts=attempts,
        seed=admitted.task.seed,
    )


def pending_of(lane: int, task: TaskState, suspect: bool) -> Pending:
    """A task as the scheduler sees it."""
    admitted = task.admitted
    return Pending(
        lane,
        admitted.position,
        work=admitted.work,
        lora=_stack_of(admitted),
        retry=task.history.troubles,
        avoid=task.avoid,
        # What failed in company tries alone: one bad task must not fail the others with it.
        group=None if task.history.troubles else group_of(admitted),
        suspect=suspect,
    )


def _stack_of(admitted: Admitted) -> Stack:
    loads = admitted.loads
    return next(iter(loads)) if len(loads) == 1 else loads or None
