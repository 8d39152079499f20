"""`MultiGPUImageGenerator`: jobs and batches of pictures, edits and scores on warm workers."""

import copy
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from loguru import logger

from core.batch_intake import BatchIntake
from core.callers import Callers
from core.checkpoints.asked_loras import (
    Paths,
    check_takes_loras,
    find_loras,
    hashes_at,
    places_of,
)
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device, choose_devices
from core.devices.model_choice import ModelChoice
from core.engine.backend import WorkerBackend
from core.engine.job import Job
from core.engine.task_engine import TaskEngine
from core.errors import InputError, LedgerError, StorageError
from core.events import Event, Listener, ignore, tell
from core.intake.planning import Plan, tell_plan
from core.intake.remaining import FIRST, Remaining
from core.intake.task_kinds import Inputs, TaskInput
from core.messages import MOST_PREVIEWS
from core.paths import as_text, user_path
from core.remote.choice import with_or_without_server
from core.roles import Roles
from core.session import Session
from core.settings import Settings, load_settings
from core.streams import occupy_standard_descriptors
from core.tasks import Result, Task
from core.worker_spec import Role

if TYPE_CHECKING:
    from core.dry_run.run_plan import RunPlan
    from core.engine.snapshot import EngineSnapshot
    from core.remote.served_models import ServedModels, ServedRole

WAIT_SLICE = 0.5  # seconds: how long a blocked wait keeps Ctrl-C waiting on some platforms
FEW_JOBS = 16
CLOSE_PATIENCE = 5.0  # seconds for the records of a batch whose caller was interrupted
WHY_MOVED = "Without a seed of its own a task gets one by its place."


class MultiGPUImageGenerator:
    """Draws pictures, edits and scores them, on one worker process per GPU.

    Use it as a context manager: workers start on entering, stay warm between batches, and
    stop on leaving::

        with MultiGPUImageGenerator(gpu_ids=[0, 2]) as generator:
            results = generator.generate_batch([{"prompt": "a red house", "seed": 1}])

    `submit` returns a job at once; several jobs share the GPUs fairly::

            job = generator.submit([{"prompt": "a red house"}])
            for result in job.as_completed():
                ...

    Where a `serve.py` of this user runs that has the models which the settings ask for, its workers
    do the work; folder, records and results are the same (`use_server` in the settings).

    A job may mix tasks that draw, edit and score. The models that edit and score are chosen with
    the first such task, and workers change their model as the waiting tasks ask for it.

    All methods may be called from several threads.

    Args:
        num_gpus: how many of the visible GPUs; all by default. Without CUDA, CPU workers.
        gpu_ids: which of the visible GPUs instead.
        config: a YAML file, a mapping of settings, or Settings; laid over config/default.yaml. Its
            sections `editor`, `judge` and `judge_model_defaults`, for tasks that edit and score,
            are laid over those of config/edit_benchmark.yaml.
        output_dir: makes batches resumable: relative output paths lie below this folder,
            nothing is written outside it, its ledger remembers what is done, and unchanged
            pictures are not drawn again; what changed tasks replace is kept in `.replaced`.
            Without it output paths are taken as Python takes paths, and existing files are
            replaced.
        input_file: what the tasks are read from, if it is a file or folder. `output_dir`
            remembers it, and refuses another one.
        overwrite: draw pictures that are done too (of those whose seed is random, with new
            seeds), and replace files of unknown origin and what another `input_file` left.
        retry_quarantined: try tasks again that killed their workers in an earlier run.
        listener: called with events (`core.events`) from the engine's thread.
        backend: runs the workers; by default processes of this machine.
        tables: write `metadata.jsonl` and `results.jsonl` to `output_dir` at the end of each batch.
        dry_run: only `plan` will be asked for: the model's LoRAs that lie on the hub are not
            fetched to be looked at, and everything that would do work is refused.

    Raises:
        InputError: settings, devices or model cannot be used as they stand, or `output_dir`
            holds the results of another input, or another program's tables.
        LedgerError: `output_dir` is in use by another run, or its ledger is damaged.
        StorageError: `output_dir` cannot be written.
    """

    def __init__(
        self,
        num_gpus: int | None = None,
        gpu_ids: Sequence[int] | None = None,
        config: str | Path | Mapping[str, Any] | Settings | None = None,
        *,
        output_dir: str | Path | None = None,
        input_file: str | Path | None = None,
        overwrite: bool = False,
        retry_quarantined: bool = False,
        listener: Listener = ignore,
        backend: WorkerBackend | None = None,
        tables: bool = True,
        dry_run: bool = False,
    ) -> None:
        occupy_standard_descriptors()
        self.settings = load_settings(config)
        self._dry_run = dry_run
        self._inspector = LoraInspector(may_download=not dry_run)
        folder = user_path(config, "config").parent if isinstance(config, str | Path) else None
        self._roles, self._server = with_or_without_server(
            "never" if backend is not None else self.settings.use_server,
            gpu_ids,
            lambda served: self._choose_roles(num_gpus, gpu_ids, folder, served),
        )
        self.listener = listener
        self._session = Session(
            None if output_dir is None else Path(output_dir),
            None if input_file is None else user_path(input_file, "input_file"),
            overwrite,
            retry_quarantined,
            tables,
        )
        self._backend = backend
        self._engine: TaskEngine | None = None
        self._served: set[Role] = set()  # by the engine
        self._owner: int | None = None  # the process that has the engine's thread and the ledger
        self._prepared = False  # a batch waits for workers
        self._stopping = False  # the user wants what runs to come to its end
        self._closing = False
        self._lora_counts = (0, 0)
        self._jobs: list[Job] = []  # those that may not be finished
        self._look_through_at = FEW_JOBS  # jobs, of which the finished are forgotten then
        self._callers = Callers()
        self._planning = threading.RLock()
        self.tables_error: StorageError | LedgerError | None = None  # of the newest batch
        # Not by the clock alone: it may be set back, and two runs may start in one second.
        self._run_name = f"{time.strftime('run_%Y%m%d_%H%M%S')}_{uuid4().hex[:6]}"

    def _choose_roles(
        self,
        num_gpus: int | None,
        gpu_ids: Sequence[int] | None,
        prompt_folder: Path | None,
        served: "ServedModels | None",
    ) -> Roles:
        devices: Sequence[Device] = ()
        if served is None:
            devices = choose_devices(num_gpus, gpu_ids, self.settings.device)
        return Roles(
            self.settings,
            devices,
            num_gpus is not None or gpu_ids is not None,
            self._inspector,
            prompt_folder,
            served,
        )

    def __enter__(self) -> "MultiGPUImageGenerator":
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop(at_once=exc_type is not None)

    @property
    def model(self) -> ModelChoice:
        """The model that draws, and how it is loaded."""
        return self._roles.drawing.model

    def model_of(self, role: Role) -> ModelChoice:
        """The model for one kind of task ("generate", "edit" or "score"), chosen now if need be.

        That may read files and ask the driver for memory; no worker loads the model for it.

        Raises:
            InputError, DeviceError: it cannot be used as it is set.
        """
        with self._planning:
            return self._roles[role].model

    @property
    def devices(self) -> list[Device]:
        """Devices that draw, one for each worker."""
        return self._roles.drawing.devices

    @property
    def output_folder(self) -> Path:
        """The folder below which relative output paths lie."""
        return self._session.root.folder

    @property
    def lora_counts(self) -> tuple[int, int]:
        """LoRA loads and switches of all workers so far."""
        return self._lora_counts if self._engine is None else self._engine.lora_counts

    @property
    def device_waits(self) -> list[float]:
        """Seconds for which devices had nothing to do before each of their newest tasks."""
        return self._engine.device_waits if self._engine is not None else []

    def use_at_most(self, workers: int) -> None:
        """Do without the last workers if fewer are needed; call it before `start`.

        A daemon's workers are all there, and any of them may take a task.
        """
        if self._server is None:
            del self.devices[max(1, workers) :]

    # -- workers -----------------------------------------------------------------

    def start(self) -> None:
        """Start the workers that draw; returns at once, and does nothing the second time.

        On GPUs, where the output folder holds finished pictures, they start with the first batch:
        its tasks tell in which memory mode these were drawn.

        Raises:
            DeviceError: the model does not fit into the GPUs' memory.
        """
        self._own()
        with self._planning:
            if "generate" not in self._served and not self._waits_for_tasks():
                self._serve("generate").warm("generate")

    def _waits_for_tasks(self) -> bool:
        session = self._session
        if self._prepared or not self._roles.drawing.memory.is_open or session.overwrite:
            return False
        return bool(session.ledger.finished())

    def _serve(self, *roles: Role) -> TaskEngine:
        """The running engine, which serves the models of these roles from now on.

        Raises:
            InputError, DeviceError: a model does not fit into the devices' memory.
        """
        with self._planning:
            if self._engine is None:
                self._engine = self._new_engine()
                self._engine.start()
            for name in roles:
                if name not in self._served:
                    role = self._roles[name]
                    role.ensure()
                    logger.info(role.reason)
                    if self._server is None:
                        self._engine.add_model(role.served())
                    self._served.add(name)
            return self._engine

    def _new_engine(self) -> TaskEngine:
        settings = self.settings
        if self._server is not None:
            from core.remote.remote_engine import RemoteEngine

            rules, timeout = settings.supervision, settings.server_timeout
            return RemoteEngine(self._server, self.devices, rules, timeout, self._tell)
        from core.engine.engine import Engine  # who has a daemon needs nothing of it
        from core.processes.local_backend import LocalBackend

        return Engine(
            [],
            [],
            self._backend or LocalBackend(settings.workers.start_method, settings.supervision),
            settings.supervision,
            settings.scheduling,
            self._tell,
        )

    def served(self, role: Role) -> "ServedRole":
        """What another process must know of a model to have its tasks done by this one's workers.

        Raises:
            InputError, DeviceError: the model cannot be used here.
        """
        from core.remote.served_models import ServedRole

        self._own()
        with self._callers.inside(), self._planning:
            self._serve(role)
            return ServedRole.of(self._roles[role])

    def warm(self, role: Role = "generate") -> None:
        """Have workers load the model of a role (generate, edit or score), and keep it.

        Raises:
            InputError, DeviceError: the model cannot be used here.
        """
        self._own()
        with self._callers.inside(), self._planning:
            self._serve(role).warm(role)

    def unload(self, role: Role) -> None:
        """Let the workers of a model go, unless tasks wait; the next task loads it again."""
        with self._planning:
            if self._engine is not None and role in self._served:
                self._engine.unload(role)

    def load_loras(self, paths: Paths, pin: bool = False, role: Role = "generate") -> None:
        """Have workers read LoRAs before there are tasks for them.

        Every worker that has the role's model reads them after the task that it runs, and keeps
        them as it keeps those of tasks: the least recently used leaves first. What a worker has to
        say against one, such as that it does not fit the model, is in the log and in `snapshot`.

        Args:
            paths: LoRA files, found as those of tasks are; or one.
            pin: they stay in memory whatever else is used, and workers that load the model later
                (after a crash, or in place of another model) read them, too. So tasks of other
                LoRAs have `max_resident_loras` less these to themselves, or one place beside them.
            role: "generate" or "edit".

        Raises:
            LoraError: a file is not there, or is no LoRA.
            InputError, DeviceError: more than `max_resident_loras` would be kept, the model
                cannot be used, or no worker has it, where LoRAs are not to be pinned.
        """
        check_takes_loras(role)
        self._own()
        with self._callers.inside():
            loras = find_loras(paths, self._lora_folders, self._inspector)
            self._serve(role).load_loras(role, loras, pin).result()

    def unload_loras(self, paths: Paths, role: Role = "generate") -> None:
        """Take LoRAs out of workers' memory, pinned or not, until a task brings them again.

        A worker that is using one does so after that task. The files need not be there any more.

        Args:
            paths, role: as in `load_loras`.
        """
        check_takes_loras(role)
        places = places_of(paths, self._lora_folders)
        with self._callers.inside():
            engine = self._engine
            if self._server is not None:
                engine = self._serve(role)
            if engine is not None and role in self._served:
                hashes = hashes_at(places, self._inspector)
                engine.unload_loras(role, hashes, places).result()

    @property
    def _lora_folders(self) -> list[Path]:
        return [Path.cwd(), user_path(self.settings.lora_dir, "lora_dir")]

    def drain(self, worker: str) -> None:
        """Give a worker (such as gpu0) no more tasks, and end it after those that it has."""
        if self._engine is not None:
            self._engine.drain(worker)

    def undrain(self, worker: str) -> None:
        """Let a drained worker come back."""
        if self._engine is not None:
            self._engine.undrain(worker)

    def snapshot(self) -> "Future[EngineSnapshot]":
        """How workers and models stand."""
        if self._engine is not None:
            return self._engine.snapshot()
        from core.engine.snapshot import EngineSnapshot

        nothing: Future[EngineSnapshot] = Future()
        nothing.set_result(EngineSnapshot())
        return nothing

    def stop(self, at_once: bool = False) -> None:
        """Stop the workers by poison pill (or at once, by SIGKILL) and close the ledger.

        A batch that another thread runs or prepares ends as interrupted, with all its records.
        In a fork of the process that works with it, nothing happens: workers and folder stay with
        that one.
        """
        if self._owner not in (None, os.getpid()):
            return
        self._closing = True
        while True:
            if self._engine is not None:
                self._engine.stop(at_once)
            if self._callers.wait_for_others(WAIT_SLICE):
                break
        if self._engine is not None:  # perhaps one that was started meanwhile
            self._engine.stop(at_once)
            self._lora_counts = self.lora_counts
        self._session.close()
        self._engine = self._owner = None
        self._served.clear()
        self._jobs = []
        self._stopping = self._closing = False

    # -- batches -----------------------------------------------------------------

    def generate_batch(
        self,
        tasks: Sequence[Mapping[str, Any] | Task],
        timeout: float | None = None,
    ) -> list[Result]:
        """Do every task: draw a picture, edit one, or score an edit.

        Args:
            tasks: GenerateTasks, EditTasks, ScoreTasks, or dicts of their fields. A dict with
                `edited_image` asks for a score, one with `instruction` or `source_images` for an
                edit, any other for a picture, which needs `prompt`; `kind` ("generate", "edit" or
                "score") says it outright. Relative LoRA paths are found from the current
                folder, then from the configured LoRA folder. Without an `output_path` results
                are called `image_0001.png`, `edit_0001.png` and `score_0001.json`, numbered by
                their place among all tasks that were given so far, of whatever kind.
            timeout: seconds; tasks that are not done by then get a record that says so.

        Returns:
            One result per task, in input order. A bad task is a failed result, never an
            exception, and so are all tasks of a kind whose model cannot be used.

        Raises:
            InputError: the output folder holds the results of another input; nothing ran.
            LedgerError, StorageError: the output folder cannot be used; nothing ran.
        """
        with self._callers.inside():
            return self._finish(*self._submit(tasks), timeout)

    def submit(
        self,
        tasks: Sequence[Mapping[str, Any] | Task],
        priority: int = 0,
        owner: str | None = None,
        listener: Listener | None = None,
        previews: int = 0,
    ) -> Job:
        """Hand in tasks, and return at once; see `generate_batch`.

        Args:
            priority: jobs of higher priority come first.
            owner: jobs of one owner share that owner's part of the GPUs; by default each job is
                an owner of its own.
            listener: told of this job's tasks, in place of the generator's.
            previews: how many small pictures of each task on its way are wanted, 0 to 3, as
                `core.events.TaskPreview` events. They change nothing about the result; tasks that
                are done already, and those that score, have none.

        Returns:
            The job: its results as they come or all at once, its progress, and its cancelling.

        Raises:
            InputError: `previews` is no such number, or a `serve.py` does the work.
        """
        if type(previews) is not int or not 0 <= previews <= MOST_PREVIEWS:
            raise InputError(f"previews: must be 0 to {MOST_PREVIEWS} (found {previews!r}).")
        if previews and self._server is not None:
            raise InputError("previews: a server gives none here; set use_server: never for them.")
        with self._callers.inside():
            self._forget_stop()
            job, plan = self._submit(tasks, priority, owner, listener, previews)
            self._feed(job, plan)
            return job

    def _submit(
        self,
        tasks: Sequence[TaskInput],
        priority: int = 0,
        owner: str | None = None,
        listener: Listener | None = None,
        previews: int = 0,
    ) -> tuple[Job, Plan]:
        with self._planning:
            plan = self.prepare(tasks, [Path.cwd()])
            if self._session.lasts and listener is None:
                tell_plan(plan.summary, "tasks", WHY_MOVED)
            if {job.role for job in plan.tasks} <= {"generate"}:
                self.start()
            return self._begin(plan, priority, owner, listener, previews), plan

    def prepare(
        self,
        inputs: Inputs,
        lora_folders: Sequence[Path],
    ) -> Plan:
        """Check inputs against settings, files and ledger, without any worker.

        Of a large input, of which no earlier result is there, only the first part is looked at:
        the rest is while workers draw.

        Args:
            inputs: tasks, read once; an InputError stands for one that its reader could not read.
            lora_folders: where relative LoRA paths are looked up before the configured folder.
        """
        self._own()
        session = self._session
        with self._planning:
            kept_seed = session.kept_seed()
            claims = session.claims.begin()
            intake = BatchIntake(
                self._roles,
                self.settings,
                session.root,
                [*lora_folders, user_path(self.settings.lora_dir, "lora_dir")],
                self._inspector,
                self._default_path(),
                session.claims.reserve_numbers(len(inputs)),
                kept_seed,
                claims,
            )
            streams = (
                len(inputs) > FIRST
                and intake.only_draws(inputs)
                and (session.is_fresh or _are_new(session, intake.outputs(inputs)))
            )
            more: list[Task] = []
            if streams and intake.goes_by_sizes(self._served):
                inputs = list(inputs)  # it is read twice
                more = intake.shapes(inputs)
            left, first_part = iter(inputs), FIRST if streams else len(inputs)
            items = [intake.admit(i, given) for i, given in enumerate(islice(left, first_part))]
            planner = session.planner(intake.model_loras)
            known = planner.known(items)
            items = intake.settle(items, {} if session.overwrite else known, self._served, more)
            plan = session.begin(planner, items, known, claims)
            if streams:
                rest = Remaining(left, first_part, len(inputs) - first_part, intake)
                plan.continue_with(rest)
            self._prepared = bool(plan.to_run)
            return plan

    def plan(self, tasks: Inputs, lora_folders: Sequence[str | Path] | None = None) -> "RunPlan":
        """What `generate_batch` would do: everything is checked, and nothing touched.

        No file is made or changed, no worker starts, nothing is loaded, downloaded or locked, and a
        daemon is asked for what it serves alone. `print(plan)` shows it.

        Args:
            tasks: as in `generate_batch`.
            lora_folders: where relative LoRA paths are looked up before the configured folder; the
                current folder by default.

        Raises:
            InputError: the output folder holds the results of another input.
            LedgerError, StorageError: its ledger is another program's, or cannot be read.
        """
        from core.dry_run.planner import plan_tasks

        own = [Path.cwd()] if lora_folders is None else [Path(f) for f in lora_folders]
        session = self._session.looking()
        try:
            with self._callers.inside(), self._planning:
                return plan_tasks(
                    tasks,
                    copy.deepcopy(self._roles),  # what is decided about memory is the plan's
                    self.settings,
                    session,
                    [*own, user_path(self.settings.lora_dir, "lora_dir")],
                    self._inspector,
                    self._default_path(),
                    self._session.claims.numbered,
                    None if self._server is None else self._server.name,
                )
        finally:
            session.close()

    def forget(self, output_paths: Sequence[str]) -> None:
        """Remove results from the output folder's record, once their files were removed.

        Args:
            output_paths: as results say them, or relative to the folder; of no task that waits
                or runs.

        Raises:
            LedgerError, StorageError: the record cannot be written.
        """
        self._own()
        with self._callers.inside():
            self._session.forget(output_paths)

    def execute(self, plan: Plan, timeout: float | None = None) -> list[Result]:
        """Run a prepared batch on the started workers; see `generate_batch`."""
        with self._callers.inside():
            return self._finish(self._begin(plan), plan, timeout)

    def _begin(
        self,
        plan: Plan,
        priority: int = 0,
        owner: str | None = None,
        listener: Listener | None = None,
        previews: int = 0,
    ) -> Job:
        roles = dict.fromkeys(task.role for task in plan.tasks)
        engine = self._serve(*(roles or (["generate"] if plan.rest else [])))
        job = self._session.submit(
            engine,
            plan,
            plan.tasks,
            plan.settled,
            priority,
            owner,
            None if listener is None else partial(tell, listener),
            previews=previews,
        )
        with self._planning:
            if len(self._jobs) >= self._look_through_at:
                self._jobs = [known for known in self._jobs if not known.finished]
                self._look_through_at = max(FEW_JOBS, 2 * len(self._jobs))
            self._jobs.append(job)
        if self._stopping or self._closing:  # asked for before there was a job
            job.interrupt()
        return job

    def _feed(self, job: Job, plan: Plan, look: Callable[[], None] = lambda: None) -> None:
        if plan.rest:
            planner = self._session.planner(self.model.loras)
            self._session.feed(self._serve("generate"), job, planner, plan, look)

    def _finish(self, job: Job, plan: Plan, timeout: float | None) -> list[Result]:
        end = None if timeout is None else time.monotonic() + timeout

        def close_if_late() -> None:
            nonlocal end
            if end is not None and _left(end) == 0:
                job.close("timeout", f"Not finished within the timeout of {timeout:g} s.")
                end = None

        try:
            self._feed(job, plan, close_if_late)
            while not job.wait(WAIT_SLICE if end is None else min(WAIT_SLICE, _left(end))):
                close_if_late()
        except BaseException:  # Ctrl-C: this caller's job ends, workers and other jobs go on
            job.cancel(at_once=True)
            job.wait(CLOSE_PATIENCE)  # so that the next batch may have its output names
            raise
        finally:
            self._forget_stop()
            if job.finished:  # its results are the caller's now
                with self._planning:
                    self._jobs = [known for known in self._jobs if known is not job]
        self.tables_error = job.records_error
        return job.results()

    def _forget_stop(self) -> None:
        """Once all that the user wanted to end has ended: the next job is another one."""
        if self._stopping and all(known.finished for known in self._jobs):
            self._stopping = False

    def _own(self) -> None:
        """Take it for this process, or say whose it is: neither workers nor ledger can be shared.

        Raises:
            LedgerError: this process is a fork of the one that works with it.
            InputError: it was made for plans alone.
        """
        if self._dry_run:
            raise InputError("This generator was made with dry_run=True, and can only plan.")
        if self._owner not in (None, os.getpid()):
            raise LedgerError(
                f"This generator is in use by process {self._owner}, of which this one is a fork. "
                "Make a generator of its own here, with another output folder."
            )
        self._owner = os.getpid()

    def stop_leasing(self) -> None:
        """Finish what runs and close all jobs as interrupted; safe in a signal handler."""
        self._stopping = True
        for job in self._jobs:
            job.interrupt()

    def abandon(self) -> None:
        """Close all jobs as interrupted at once; safe in a signal handler."""
        for job in self._jobs:
            job.interrupt(at_once=True)

    def _tell(self, event: Event) -> None:
        """Call the listener of this moment."""
        tell(self.listener, event)

    def _default_path(self) -> Callable[[str], str]:
        """Where a result without a path of its own lies, by its name; holds no generator alive."""
        if self._session.lasts:
            return str
        folder = user_path(self.settings.output_dir, "output_dir") / self._run_name
        return lambda name: as_text(folder / name)


def _are_new(session: Session, outputs: Sequence[str] | None) -> bool:
    return outputs is not None and session.has_none_of(outputs)


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())
