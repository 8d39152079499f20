"""What becomes of the attempts at a job's tasks: recorded, and decided by the rules of retry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import uuid4

from loguru import logger

from core.engine import retry
from core.engine.job import Job
from core.engine.recorder import Attempt, Ending, Recorder, Refusal, Then
from core.engine.retry import Cause, RetryRules
from core.engine.task_state import ActiveAttempt, TaskState
from core.errors import LedgerError, StorageError
from core.events import Listener, TaskStarted, shape_of
from core.messages import Done, Failed, Lease
from core.tasks import Status


@dataclass(frozen=True)
class WorkerLoss:
    """Why a worker is gone. `hung`: the engine ended it because a task passed its deadline."""

    reason: str
    by_sigkill: bool = False
    hung: bool = False


class Settle(Protocol):
    """Gives a task its result."""

    def __call__(
        self,
        task: TaskState,
        status: Status,
        worker: str | None,
        error: str | None = None,
        elapsed: float = 0.0,
        cause: str | None = None,
    ) -> None: ...


class Attempts:
    """The attempts at one job's tasks that are out.

    Args:
        job: the caller's handle.
        recorder: of the job's output folder.
        rules: how often a task is tried.
        listener: told of tasks that start.
        then: turns a call into one that a recorder may make from its own thread.
        settle: gives a task its result.
        again: told of a task that is to be tried again.
        on_storage_error: told that the output folder takes nothing more.
        previews: how many previews of each task are wanted.
    """

    def __init__(
        self,
        job: Job,
        recorder: Recorder,
        rules: RetryRules,
        listener: Listener,
        then: Callable[[Callable[[Refusal | None], None]], Then],
        settle: Settle,
        again: Callable[[TaskState], None],
        on_storage_error: Callable[[Refusal], None],
        previews: int = 0,
    ) -> None:
        self._job = job
        self._recorder = recorder
        self._rules = rules
        self._listener = listener
        self._then = then
        self._settle = settle
        self._again = again
        self._on_storage_error = on_storage_error
        self._previews = previews
        self._active: dict[str, ActiveAttempt] = {}

    def __bool__(self) -> bool:
        """Whether any attempt that counts is still out."""
        return bool(self._active)

    def __iter__(self) -> Iterator[ActiveAttempt]:
        return iter(list(self._active.values()))

    def is_suspect(self, task: TaskState) -> bool:
        """The task must run with nothing else in its worker."""
        return retry.is_suspect(task.history, self._rules)

    def begin(
        self, task: TaskState, worker: str, answered: Callable[[ActiveAttempt, bool], None]
    ) -> ActiveAttempt:
        """An attempt for a worker; it may be sent once its lease is recorded.

        Args:
            answered: told when it is (True), or that it came to nothing (False).
        """
        lease_id = uuid4().hex[:16]
        admitted = task.admitted
        partial = self._recorder.partial_path(admitted, lease_id)
        task.attempts += 1
        batch = self._recorder.batch
        previews = 0 if task.out else self._previews  # a copy would show the same once more
        attempt = Attempt(lease_id, batch, admitted, task.attempts, worker, partial, previews)
        lease = Lease(
            lease_id,
            task.attempts,
            admitted.task,
            admitted.lora_sha256,
            admitted.fingerprint,
            partial,
            admitted.contents.pictures,
            loras_sha256=admitted.contents.loras,
            previews=previews,
        )
        active = ActiveAttempt(
            self._job.number, self._recorder, task, attempt, lease, self.is_suspect(task)
        )
        self._active[lease_id] = active
        task.out = (*task.out, active)
        if len(task.out) == 1:
            self._job.began()
        steps = getattr(admitted.task, "num_inference_steps", None) or 0
        shape = shape_of(admitted)
        self._listener(TaskStarted(admitted.task_id, worker, self._job.number, steps, shape))

        def begun(refusal: Refusal | None) -> None:
            if active.thrown_away:
                self._recorder.discard(attempt)
            elif refusal is not None and lease_id in self._active:
                self._retire(active)
                if not _has_another(task):
                    self._disk_refused(active, refusal)
            answered(active, refusal is None and not active.thrown_away)

        self._recorder.begin(attempt, self._then(begun))
        return active

    def may_copy(self, task: TaskState) -> bool:
        """A second attempt beside the one that is out would do no harm."""
        return not task.copied and task.history.troubles == 0 and not task.recording

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
            self._recorder.end_lease_alone(active.attempt, "superseded")
            return

        def kept(refusal: Refusal | None) -> None:
            recorded()
            if refusal is None:
                for late in task.out:
                    self.throw_away(late)
                    self._recorder.end_lease_alone(late.attempt, "superseded")
                self._settle(task, "done", active.attempt.worker, elapsed=message.elapsed)
            elif task.out:  # the other run decides
                self._recorder.end_lease_alone(active.attempt, "storage")
            else:
                self._end_for_storage(active, refusal)

        self._recorder.keep(active.attempt, message, self._recording(task, kept))

    def failed(self, active: ActiveAttempt, message: Failed) -> None:
        """An attempt ended in an error that its worker reported."""
        if not self._retire(active):
            return
        if message.kind == "storage":
            if _has_another(active.task):
                self._recorder.end_lease_alone(active.attempt, "storage")
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
            self._recorder.discard(active.attempt)
            return False
        del self._active[active.lease_id]
        if not active.task.out:
            self._job.returned()
        return True

    def throw_away(self, active: ActiveAttempt) -> None:
        """Ignore whatever an attempt brings from now on."""
        active.thrown_away = True
        self._active.pop(active.lease_id, None)

    def let_go(self) -> None:
        """Know no more whom to tell: the job has ended.

        It knows its attempts, and they it: both would be kept, with all their results, until the
        collector of garbage finds them.
        """
        self._settle = self._again = _ignore

    def _ended(self, active: ActiveAttempt, cause: Cause, error: str, elapsed: float = 0.0) -> None:
        task = active.task
        task.history = task.history.plus(cause, active.alone)
        if cause != "released":
            task.avoid |= {active.attempt.worker}
        if _has_another(task):
            self._recorder.end_lease_alone(active.attempt, cause)
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
        self._end_task(active, Ending(written, outcome, error, elapsed, cause), outcome)

    def ended_elsewhere(
        self,
        active: ActiveAttempt,
        outcome: Literal["failed", "quarantined"],
        error: str,
        elapsed: float,
        cause: Cause | None,
    ) -> None:
        """A task has ended without a result, as those decided who had tried it for this engine."""
        if self._retire(active):
            ending = Ending(cause or "error", outcome, error, elapsed, cause)
            self._end_task(active, ending, outcome)

    def _end_task(
        self,
        active: ActiveAttempt,
        ending: Ending,
        outcome: Literal["failed", "quarantined"],
    ) -> None:
        task, worker = active.task, active.attempt.worker
        error, elapsed, blame = ending.error, ending.elapsed, ending.blame
        self._record_end(
            active, ending, lambda: self._settle(task, outcome, worker, error, elapsed, blame)
        )

    def _record_end(self, active: ActiveAttempt, ending: Ending, then: Callable[[], None]) -> None:
        def ended(refusal: Refusal | None) -> None:
            if refusal is None:
                then()
            else:
                self._disk_refused(active, refusal)

        self._recorder.end(active.attempt, ending, self._recording(active.task, ended))

    def _recording(self, task: TaskState, then: Callable[[Refusal | None], None]) -> Then:
        """Count a task as being recorded until the recorder answers."""

        def answered(refusal: Refusal | None) -> None:
            task.recording -= 1
            then(refusal)

        task.recording += 1
        return self._then(answered)

    # -- an output folder that takes nothing ----------------------------------

    def _end_for_storage(self, active: ActiveAttempt, refusal: Refusal) -> None:
        """A result cannot be kept: that is its task's end, whatever the record says."""
        task, worker = active.task, active.attempt.worker

        def ended(_: Refusal | None) -> None:
            self._settle(task, "failed", worker, str(refusal), cause="storage")
            self._mind_the_folder(refusal)

        ending = Ending("storage", "failed", str(refusal), blame="storage")
        self._recorder.end(active.attempt, ending, self._recording(task, ended))

    def _disk_refused(self, active: ActiveAttempt, refusal: Refusal) -> None:
        """One result cannot be kept. If none can, to make more would only waste the devices."""
        self._recorder.fail(active.attempt, str(refusal))
        self._settle(active.task, "failed", active.attempt.worker, str(refusal), cause="storage")
        self._mind_the_folder(refusal)

    def _mind_the_folder(self, refusal: Refusal) -> None:
        if isinstance(refusal, LedgerError) or refusal.fatal:
            self._on_storage_error(refusal)


def _ignore(*_: object, **__: object) -> None:
    """Do nothing about what comes when a job has ended."""


def _has_another(task: TaskState) -> bool:
    """Another attempt at the task decides: it is out, or its result is being recorded."""
    return bool(task.out) or task.recording > 0
