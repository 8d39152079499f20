"""The jobs that an engine works on, and how the scheduler knows their tasks."""

from collections.abc import Iterator

from core.engine.job_run import JobRun, pending_of
from core.engine.pending import Pending
from core.engine.scheduler import Scheduler
from core.engine.task_state import ActiveAttempt, TaskState


class JobTable:
    """Jobs by their number. To the scheduler a job is one lane for each model that it asks for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._runs: dict[int, JobRun] = {}
        self._lanes: dict[int, tuple[JobRun, str]] = {}  # and the model's name
        self._last_lane = 0

    def __iter__(self) -> Iterator[JobRun]:
        return iter(list(self._runs.values()))

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, number: int) -> bool:
        return number in self._runs

    def add(self, run: JobRun) -> None:
        """Work on a job from now on."""
        self._runs[run.number] = run

    def get(self, number: int) -> JobRun | None:
        """The job of a number, unless it has ended."""
        return self._runs.get(number)

    def of(self, active: ActiveAttempt) -> JobRun | None:
        """The job of an attempt, unless it has ended."""
        return self._runs.get(active.job)

    def queue(self, run: JobRun, task: TaskState) -> None:
        """Let a task wait for a worker."""
        model = task.admitted.role
        lane = run.lanes.get(model)
        if lane is None:
            self._last_lane += 1
            lane = run.lanes[model] = self._last_lane
            self._lanes[lane] = (run, model)
            self._scheduler.open(lane, run.owner, run.priority, model)
        self._scheduler.add(pending_of(lane, task, run.attempts.is_suspect(task)))

    def find(self, pending: Pending) -> tuple[JobRun, TaskState]:
        """The job and the task that the scheduler has given out."""
        run, _ = self._lanes[pending.job]
        return run, run.waiting_task(pending.position)

    def withdraw(self, run: JobRun, model: str | None = None) -> None:
        """Give out none of a job's waiting tasks any more, or none of those for one model."""
        for name in [model] if model is not None else list(run.lanes):
            lane = run.lanes.pop(name, None)
            if lane is not None:
                self._scheduler.drop(lane)
                del self._lanes[lane]

    def end(self, run: JobRun) -> None:
        """Every task of a job has its result."""
        self.withdraw(run)
        del self._runs[run.number]
