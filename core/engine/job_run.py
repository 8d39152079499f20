"""A job inside the engine: what becomes of its tasks until each of them has its result.

Used by the engine's thread alone. `core.engine.attempts` has what becomes of single attempts.
"""

from collections.abc import Callable, Iterable
from functools import partial

from core.details import log_line
from core.engine.attempts import Attempts
from core.engine.grouping import group_of
from core.engine.job import INTERRUPTED, Job
from core.engine.pending import Pending, Stack
from core.engine.recorder import Recorder, Refusal, Then
from core.engine.retry import Cause, RetryRules
from core.engine.task_state import TaskState
from core.events import Event, Listener, TaskEnded, shape_of
from core.intake.admission import Admitted
from core.store.ledger_entry import result_of
from core.tasks import Result, Status


class JobRun:
    """The tasks of one job.

    Args:
        job: the caller's handle.
        recorder: of the job's output folder.
        rules: how often a task is tried.
        listener: told of tasks that start and end.
        queue: puts a task into the scheduler.
        withdraw: takes what waits out of the scheduler again: all, or what is for one model.
        in_turn: has a call made by the engine's thread, in its turn.
        on_finished: told when every task has its result and no more will come.
        on_storage_error: told of a recorder whose output folder takes nothing more.
        refusal: the result of a task that cannot be tried any more, as status and error.
        share: owner and priority of the job.
        keeps_results: some of the job's inputs have results of earlier runs, which stay.
        previews: how many previews of each task are wanted.
        is_told: the job has a listener of its own, so that the log need not say how it ends.
    """

    def __init__(
        self,
        job: Job,
        recorder: Recorder,
        rules: RetryRules,
        listener: Listener,
        queue: Callable[["JobRun", TaskState], None],
        withdraw: Callable[["JobRun", str | None], None],
        in_turn: Callable[[Callable[[], None]], None],
        on_finished: Callable[["JobRun"], None],
        on_storage_error: Callable[[Recorder, Refusal], None],
        refusal: Callable[[Admitted], tuple[Status, str] | None],
        share: tuple[str, int],
        keeps_results: bool = False,
        previews: int = 0,
        is_told: bool = False,
    ) -> None:
        self.job = job
        self._is_told = is_told
        self.recorder = recorder
        self.keeps_results = keeps_results
        self.owner, self.priority = share
        self.lanes: dict[str, int] = {}  # of the scheduler, by model
        self._refusal = refusal
        self._listener = listener
        self._queue = queue
        self._withdraw = withdraw
        self._then = partial(_then, in_turn)
        self._on_finished = on_finished
        self.attempts = Attempts(
            job,
            recorder,
            rules,
            listener,
            self._then,
            self._settle,
            self._again,
            partial(on_storage_error, recorder),
            previews,
        )
        self._tasks: dict[int, TaskState] = {}  # those without a result
        self._sealed = False  # no more tasks will be added
        self._finishing = False  # all that is left to do is to write the tables

    # -- tasks ---------------------------------------------------------------

    @property
    def number(self) -> int:
        return self.job.number

    def tell(self, event: Event) -> None:
        """Tell whoever watches the job."""
        self._listener(event)

    @property
    def _leasing(self) -> bool:
        """Waiting tasks may be given to workers."""
        return self.job.ends_as is None

    def add(self, admitted: Iterable[Admitted]) -> None:
        """Add tasks, which the caller's `Job` has counted already."""
        for one in admitted:
            task = self._tasks[one.position] = TaskState(one)
            refused = self.job.closed_as or self._refusal(one) or self.job.ends_as
            if refused is not None:
                self._settle(task, refused[0], None, refused[1])
            else:
                self._queue(self, task)

    def refuse(self, results: Iterable[Result]) -> None:
        """Tasks more that ended before they were tried; their number the handle has been told."""
        for result in results:
            refused = self.job.closed_as is None and result.status == "failed"
            self.keeps_results = self.keeps_results or result.success
            self._listener(TaskEnded(result, self.number, refused))
            self._note(result)

    def has(self, task: TaskState) -> bool:
        """Whether a task is still without a result."""
        return self._tasks.get(task.admitted.position) is task

    def refuse_task(
        self, task: TaskState, status: Status, reason: str, cause: Cause | None
    ) -> None:
        """Give a task that no worker has its result; its record keeps it as one to be tried."""
        self._settle(task, status, None, reason, cause=cause, refused=True)

    def seal(self) -> None:
        """Note that no more tasks will be added."""
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

    def may_copy(self, task: TaskState) -> bool:
        """A second attempt beside the one that is out would do no harm."""
        return self._leasing and self._sealed and self.attempts.may_copy(task)

    def _again(self, task: TaskState) -> None:
        refused = self.job.closed_as or self._refusal(task.admitted)
        if refused is not None:
            self._settle(task, refused[0], None, refused[1])
            return
        if self._leasing:
            self._queue(self, task)
        self._close_if_drained()

    # -- the end -------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Let what runs finish and give out nothing more."""
        if self._leasing:
            self.job.ends_as = ("interrupted", reason)
            self._withdraw(self, None)
        self._close_if_drained()

    def close(self, status: Status, reason: str, cause: Cause | None = None) -> None:
        """Close every open task now, and every one that is added.

        The record keeps these tasks as they are, so that a resumed run tries them. What is being
        recorded at this moment is still reported as what it is.
        """
        # What was promised has its results, too: the job is not finished before it is sealed.
        self._sealed = self._sealed or not self.job.promised
        self.job.closed_as = self.job.ends_as = (status, reason)
        self.close_some(status, reason, cause=cause)
        self._finish_if_complete()

    def close_for_the_disk(self, reason: str) -> None:
        """Close every open task as failed, because the output folder takes nothing more."""
        self.close("failed", reason, "storage")

    def close_some(
        self,
        status: Status,
        reason: str,
        brief: str | None = None,
        model: str | None = None,
        cause: Cause | None = None,
    ) -> None:
        """Close open tasks now; results of theirs that still come are thrown away.

        Args:
            brief: the reason for the log, if that has the whole already.
            model: close only those that are for this one.
        """
        self._withdraw(self, model)
        for active in self.attempts:
            if model in (None, active.admitted.role):
                self.attempts.throw_away(active)
        still_open = [
            task
            for task in self._tasks.values()
            if not task.recording and model in (None, task.admitted.role)
        ]
        if still_open:
            count = len(still_open) + (self.job.promised if model is None else 0)
            left = f"{count} task{'s' * (count > 1)} left"
            level = "ERROR" if status == "failed" and brief is None else "WARNING"
            level = "DEBUG" if self._is_told else level
            why = "" if reason == INTERRUPTED else f" {brief or reason}"  # who did it knows
            log_line(level, f"Stopped with {left}.{why}")
        for task in still_open:
            self._settle(task, status, None, reason, cause=cause)

    def _settle(
        self,
        task: TaskState,
        status: Status,
        worker: str | None,
        error: str | None = None,
        elapsed: float = 0.0,
        cause: str | None = None,
        refused: bool = False,
    ) -> None:
        admitted = task.admitted
        if self._tasks.pop(admitted.position, None) is None:
            return
        if task.out:
            self.job.returned()
        result = result_of(admitted, status, worker, error, elapsed, task.attempts, cause)
        self._listener(TaskEnded(result, self.number, refused, shape_of(admitted)))
        # The record of one that was done says the same, unless it ran twice.
        self._note(result, is_recorded=status == "done" and not task.copied)
        self._close_if_drained()
        self._finish_if_complete()

    def _note(self, result: Result, is_recorded: bool = False) -> None:
        if not self.job.keeps_results and not is_recorded:
            self.recorder.note(result)
        self.job.settle(result)

    def _close_if_drained(self) -> None:
        """A job that gives out nothing more ends when nothing of it runs or is being recorded."""
        end = self.job.ends_as
        if end is None or self.attempts or self.job.closed_as is not None or not self._tasks:
            return
        if not any(task.recording for task in self._tasks.values()):
            self.job.closed_as = end
            self.close_some(*end)
            self._finish_if_complete()

    def _finish_if_complete(self) -> None:
        if self._tasks or not self._sealed or self._finishing:
            return
        self._finishing = True

        def written(refusal: Refusal | None) -> None:
            self.job.records_error = refusal
            self._on_finished(self)
            self.job.finish()
            self.attempts.let_go()

        self.recorder.finish(self.job.results_so_far(), self.job.ended, self._then(written))


def _then(
    in_turn: Callable[[Callable[[], None]], None], call: Callable[[Refusal | None], None]
) -> Then:
    """A recorder answers in its own thread."""
    return lambda refusal: in_turn(lambda: call(refusal))


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
