"""The batches of a generator: from inputs to a plan, to a job of the engine, to its results."""

import copy
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from core.batch_intake import BatchIntake
from core.checkpoints.lora_files import LoraInspector
from core.engine.job import Job
from core.errors import InputError, LedgerError, StorageError
from core.events import Listener, tell
from core.feeding import MOST_WAITING
from core.intake.planning import Plan, tell_plan
from core.intake.remaining import ENDED, FIRST, Remaining
from core.intake.task_kinds import Inputs, TaskInput, rereadable
from core.paths import as_text, user_path
from core.session import Session
from core.settings import Settings
from core.tasks import Result, Task
from core.warm_models import WarmModels

if TYPE_CHECKING:
    from core.dry_run.run_plan import RunPlan

WAIT_SLICE = 0.5  # seconds: how long a blocked wait keeps Ctrl-C waiting on some platforms
FEW_JOBS = 16
CLOSE_PATIENCE = 5.0  # seconds for the records of a batch whose caller was interrupted
WHY_MOVED = "Without a seed of its own a task gets one by its place."


class Batches:
    """Safe for several threads.

    Args:
        planning: held while a batch is planned and handed in.

    Attributes:
        closing: workers are about to be stopped: what begins now ends at once.
        tables_error: why the tables of the newest batch could not be written, if so.
    """

    def __init__(
        self,
        settings: Settings,
        session: Session,
        models: WarmModels,
        inspector: LoraInspector,
        planning: threading.RLock,
    ) -> None:
        self.closing = False
        self.tables_error: StorageError | LedgerError | None = None
        self._settings = settings
        self._session = session
        self._models = models
        self._inspector = inspector
        self._planning = planning
        self._prepared = False  # one waits for workers
        self._stopping = False  # the user wants what runs to come to its end
        self._jobs: list[Job] = []  # those that may not be finished
        self._look_through_at = FEW_JOBS  # jobs, of which the finished are forgotten then
        # Not by the clock alone: it may be set back, and two runs may start in one second.
        self._run_name = f"{time.strftime('run_%Y%m%d_%H%M%S')}_{uuid4().hex[:6]}"

    def start_drawing(self) -> None:
        """Start the workers that draw; see `MultiGPUImageGenerator.start`."""
        with self._planning:
            if "generate" not in self._models.served and not self._tell_the_memory_mode():
                self._models.warm("generate")

    def _tell_the_memory_mode(self) -> bool:
        """Whether it takes tasks to tell how the model is to be loaded."""
        session = self._session
        if self._prepared or not self._models.roles.drawing.memory.is_open or session.overwrite:
            return False
        return session.ledger.has_finished

    # -- from inputs to a job ----------------------------------------------------

    def prepare(self, inputs: Inputs, lora_folders: Sequence[Path]) -> Plan:
        """Check inputs, and record what is to be done; see `MultiGPUImageGenerator.prepare`."""
        session, models = self._session, self._models
        with self._planning, session.tracker.headway.at("preparing"):
            claims = session.claims.begin()
            intake = BatchIntake(
                models.roles,
                self._settings,
                session.root,
                [*lora_folders, user_path(self._settings.lora_dir, "lora_dir")],
                self._inspector,
                self._default_path(),
                session.claims.reserve_numbers(len(inputs)),
                session.kept_seed(),
                claims,
            )
            only_draws = len(inputs) > FIRST and intake.only_draws(inputs)
            all_new = only_draws and (session.is_fresh or _are_new(session, intake.outputs(inputs)))
            # Of an input that is there in part as much is compared first as may be in memory.
            first_part = FIRST if all_new else MOST_WAITING if only_draws else len(inputs)
            streams = first_part < len(inputs)
            more: list[Task] = []
            if streams and intake.goes_by_sizes(models.served):
                if not rereadable(inputs):
                    inputs = list(inputs)
                more = intake.shapes(inputs)
            left = iter(inputs)
            first = chain(islice(left, first_part), repeat(InputError(ENDED)))
            count = min(first_part, len(inputs))
            places = session.tracker.headway.over("checking", range(count), count)
            items = [intake.admit(i, next(first)) for i in places]
            planner = session.planner(intake.model_loras)
            known = planner.known(items)
            items = intake.settle(items, {} if session.overwrite else known, models.served, more)
            plan = session.begin(planner, items, known, claims)
            if streams:
                rest = Remaining(left, first_part, len(inputs) - first_part, intake)
                plan.continue_with(rest, all_new)
                claims.continues()
            self._prepared = bool(plan.to_run)
            return plan

    def plan(self, inputs: Inputs, lora_folders: Sequence[Path]) -> "RunPlan":
        """Check inputs, and touch nothing; see `MultiGPUImageGenerator.plan`."""
        from core.dry_run.planner import plan_tasks

        models, session = self._models, self._session.looking()
        try:
            with self._planning, session.tracker.headway.at("preparing"):
                return plan_tasks(
                    inputs,
                    copy.deepcopy(models.roles),  # what is decided about memory is the plan's
                    self._settings,
                    session,
                    [*lora_folders, user_path(self._settings.lora_dir, "lora_dir")],
                    self._inspector,
                    self._default_path(),
                    self._session.claims.numbered,
                    None if models.server is None else models.server.name,
                )
        finally:
            session.close()

    def _default_path(self) -> Callable[[str], str]:
        """Where a result without a path of its own lies, by its name; holds no generator alive."""
        if self._session.lasts:
            return str
        folder = user_path(self._settings.output_dir, "output_dir") / self._run_name
        return lambda name: as_text(folder / name)

    def submit(
        self,
        tasks: Sequence[TaskInput],
        priority: int = 0,
        owner: str | None = None,
        listener: Listener | None = None,
        previews: int = 0,
    ) -> tuple[Job, Plan]:
        """Plan a batch and hand in its first part; `feed` has to follow."""
        with self._planning:
            plan = self.prepare(tasks, [Path.cwd()])
            if self._session.lasts and listener is None:
                tell_plan(plan.summary, "tasks", WHY_MOVED)
            if {job.role for job in plan.tasks} == {"generate"}:
                self.start_drawing()
            return self.begin(plan, priority, owner, listener, previews), plan

    def begin(
        self,
        plan: Plan,
        priority: int = 0,
        owner: str | None = None,
        listener: Listener | None = None,
        previews: int = 0,
        told: Callable[[Result], None] | None = None,
    ) -> Job:
        """Hand in what a plan has begun with.

        Args:
            told: takes each result of the job, which keeps none of them then.
        """
        roles = dict.fromkeys(task.role for task in plan.tasks)
        engine = self._models.engine_for(*(roles or (["generate"] if plan.rest else [])))
        job = self._session.submit(
            engine,
            plan,
            plan.tasks,
            plan.settled,
            priority,
            owner,
            None if listener is None else partial(tell, listener),
            previews=previews,
            told=told,
        )
        with self._planning:
            if len(self._jobs) >= self._look_through_at:
                self._jobs = [known for known in self._jobs if not known.finished]
                self._look_through_at = max(FEW_JOBS, 2 * len(self._jobs))
            self._jobs.append(job)
        if self._stopping or self.closing:  # asked for before there was a job
            job.interrupt()
        return job

    def feed(self, job: Job, plan: Plan, look: Callable[[], None] = lambda: None) -> None:
        """Give a job the rest of its batch, if there is more.

        Args:
            look: called now and then meanwhile.
        """
        if plan.rest:
            planner = self._session.planner(self._models.roles.drawing.model.loras)
            engine = self._models.engine_for("generate")
            self._session.feed(engine, job, planner, plan, look)

    # -- to its end --------------------------------------------------------------

    def finish(self, job: Job, plan: Plan, timeout: float | None) -> list[Result]:
        """Give a job the rest of its batch, and wait for its results."""
        self._wait(job, plan, timeout)
        return plan.told(job.results())

    def run(self, plan: Plan, told: Callable[[Result], None]) -> None:
        """Do what a plan says, and hand out each result as it comes; none of them is kept."""
        for result in plan.settled:
            told(plan.told_of(result))
        job = self.begin(plan, told=lambda result: told(plan.told_of(result)))
        plan.tasks.clear()  # they are the job's now
        self._wait(job, plan, None)

    def _wait(self, job: Job, plan: Plan, timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout

        def close_if_late() -> None:
            nonlocal end
            if end is not None and _left(end) == 0:
                job.close("timeout", f"Not finished within the timeout of {timeout:g} s.")
                end = None

        try:
            self.feed(job, plan, close_if_late)
            while not job.wait(WAIT_SLICE if end is None else min(WAIT_SLICE, _left(end))):
                close_if_late()
        except BaseException:  # Ctrl-C: this caller's job ends, workers and other jobs go on
            job.cancel(at_once=True)
            job.wait(CLOSE_PATIENCE)  # so that the next batch may have its output names
            raise
        finally:
            self.forget_stop()
            if job.finished:  # its results are the caller's now
                with self._planning:
                    self._jobs = [known for known in self._jobs if known is not job]
        self.tables_error = job.records_error

    def forget_stop(self) -> None:
        """Once all that the user wanted to end has ended: the next job is another one."""
        if self._stopping and all(known.finished for known in self._jobs):
            self._stopping = False

    def stop_leasing(self) -> None:
        """Finish what runs and close all jobs as interrupted; safe in a signal handler."""
        self._stopping = True
        for job in self._jobs:
            job.interrupt()

    def abandon(self) -> None:
        """Close all jobs as interrupted at once; safe in a signal handler."""
        for job in self._jobs:
            job.interrupt(at_once=True)
        if self._models.engine is not None:  # it may be waiting for workers, with no job left
            self._models.engine.hurry()

    def forget(self) -> None:
        """Be as before the first batch; called when the workers are stopped."""
        self._jobs = []
        self._stopping = self.closing = False


def _are_new(session: Session, outputs: Sequence[str] | None) -> bool:
    return outputs is not None and session.has_none_of(outputs)


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())
