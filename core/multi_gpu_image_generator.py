"""`MultiGPUImageGenerator`: jobs and batches of pictures on warm, supervised workers."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from loguru import logger

from core.checkpoints.lora_files import LoraInspector
from core.devices.device import choose_devices
from core.devices.memory_choice import MemoryChoice, demand_of, usual_demand
from core.devices.model_choice import ModelChoice, choose_drawing_model
from core.devices.sharing import share_out
from core.engine.backend import WorkerBackend
from core.engine.engine import Engine
from core.engine.job import Job
from core.errors import LedgerError, StorageError
from core.events import Event, Listener, ignore
from core.index_files import PIPELINE_INDEX
from core.intake.admission import Admission, Admitted
from core.intake.kinds.generate import GenerateKind
from core.intake.planning import Plan, tell_plan
from core.intake.remaining import FIRST, Remaining
from core.intake.shapes import shapes_of
from core.intake.task_kinds import Inputs, LoraFinder, TaskInput
from core.memory_modes import refuse_unusable
from core.paths import as_text, user_path
from core.processes.local_backend import LocalBackend
from core.role_model import RoleModel
from core.session import Session
from core.settings import GenerationDefaults, Settings, load_settings
from core.streams import occupy_standard_descriptors
from core.tasks import GenerateTask, Result

WAIT_SLICE = 0.5  # seconds: how long a blocked wait keeps Ctrl-C waiting on some platforms
INTERRUPTED = "Not tried: the run was interrupted."
INTERRUPTED_AT_ONCE = "Not finished: the run was interrupted."
WHY_MOVED = "Without a seed of its own a task gets one by its place."


class MultiGPUImageGenerator:
    """Generates pictures on one worker process per GPU.

    Use it as a context manager: workers start on entering, stay warm between batches, and
    stop on leaving::

        with MultiGPUImageGenerator(gpu_ids=[0, 2]) as generator:
            results = generator.generate_batch([{"prompt": "a red house", "seed": 1}])

    `submit` returns a job at once; several jobs share the GPUs fairly::

            job = generator.submit([{"prompt": "a red house"}])
            for result in job.as_completed():
                ...

    All methods may be called from several threads.

    Args:
        num_gpus: how many of the visible GPUs; all by default. Without CUDA, CPU workers.
        gpu_ids: which of the visible GPUs instead.
        config: a YAML file, a mapping of settings, or Settings; laid over config/default.yaml.
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
    ) -> None:
        occupy_standard_descriptors()
        self.settings = load_settings(config)
        self._inspector = LoraInspector()
        self.devices = share_out(
            choose_devices(num_gpus, gpu_ids, self.settings.device),
            self.settings.gpus_per_worker or 1,
            self.settings.workers_per_gpu or 1,
            asked_for=num_gpus is not None or gpu_ids is not None,
        )
        folders = [Path.cwd(), user_path(self.settings.lora_dir, "lora_dir")]
        model = choose_drawing_model(self.settings, self.devices, folders, self._inspector)
        workers = self.settings.workers  # not self: a generator that is dropped frees its folder
        self._memory = MemoryChoice(
            model,
            self.settings.memory,
            self.devices,
            "generate",
            PIPELINE_INDEX,
            lambda model: workers.decisive(model.deciding),
        )
        refuse_unusable(model.memory, "generate", self.devices[0].kind == "cpu")
        self.listener = listener
        self._session = Session(
            None if output_dir is None else Path(output_dir),
            None if input_file is None else user_path(input_file, "input_file"),
            overwrite,
            retry_quarantined,
        )
        self._backend = backend
        self._engine: Engine | None = None
        self._owner: int | None = None  # the process that has the engine's thread and the ledger
        self._prepared = False  # a batch waits for workers
        self._stopping = False  # the user wants what runs to come to its end
        self._closing = False
        self._lora_counts = (0, 0)
        self._jobs: list[Job] = []  # those that may not be finished
        self._callers = _Callers()
        self._planning = threading.RLock()
        self.tables_error: StorageError | LedgerError | None = None  # of the newest batch
        # Not by the clock alone: it may be set back, and two runs may start in one second.
        self._run_name = f"{time.strftime('run_%Y%m%d_%H%M%S')}_{uuid4().hex[:6]}"

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
        """The model, and how it is loaded."""
        return self._memory.model

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
        """Do without the last workers if fewer are needed; call it before `start`."""
        self.devices = self.devices[: max(1, workers)]

    # -- workers -----------------------------------------------------------------

    def start(self) -> None:
        """Start the workers; returns at once, and does nothing the second time.

        On GPUs, where the output folder holds finished pictures, they start with the first batch:
        its tasks tell in which memory mode these were drawn.

        Raises:
            DeviceError: the model does not fit into the GPUs' memory.
        """
        self._own()
        with self._planning:
            if self._engine is None and not self._waits_for_tasks():
                self._memory.ensure(usual_demand(self._layers))
                logger.info(self.model.reason)
                self._running_engine().warm("generate")

    def _waits_for_tasks(self) -> bool:
        session = self._session
        if self._prepared or not self._memory.is_open or session.overwrite:
            return False
        return bool(session.ledger.finished())

    def _running_engine(self) -> Engine:
        with self._planning:
            if self._engine is None:
                settings = self.settings
                backend = self._backend or LocalBackend(
                    settings.workers.start_method, settings.supervision
                )
                drawing = RoleModel("generate", self._memory, self.devices, settings)
                self._engine = Engine(
                    self.devices,
                    [drawing.served()],
                    backend,
                    settings.supervision,
                    settings.scheduling,
                    self._tell,
                )
                self._engine.start()
            return self._engine

    @property
    def _layers(self) -> list[GenerationDefaults]:
        """Defaults of tasks, the first to count first."""
        return [self.settings.defaults, self.settings.defaults_for(*self.model.names)]

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
        self._jobs = []
        self._stopping = self._closing = False

    # -- batches -----------------------------------------------------------------

    def generate_batch(
        self,
        tasks: Sequence[Mapping[str, Any] | GenerateTask],
        timeout: float | None = None,
    ) -> list[Result]:
        """Generate one picture per task.

        Args:
            tasks: dicts or GenerateTasks; a dict needs `prompt` and may have every other
                field of GenerateTask. Relative LoRA paths are found from the current
                folder, then from the configured LoRA folder.
            timeout: seconds; tasks that are not done by then get a record that says so.

        Returns:
            One result per task, in input order. A bad task is a failed result, never an
            exception.

        Raises:
            InputError: the output folder holds the results of another input; nothing ran.
            LedgerError, StorageError: the output folder cannot be used; nothing ran.
        """
        with self._callers.inside():
            return self._finish(*self._submit(tasks), timeout)

    def submit(
        self,
        tasks: Sequence[Mapping[str, Any] | GenerateTask],
        priority: int = 0,
        owner: str | None = None,
    ) -> Job:
        """Have pictures generated, and go on; see `generate_batch`.

        Args:
            priority: jobs of higher priority come first.
            owner: jobs of one owner share that owner's part of the GPUs; by default each job is
                an owner of its own.

        Returns:
            The job: its results as they come or all at once, its progress, and its cancelling.
        """
        with self._callers.inside():
            job, plan = self._submit(tasks, priority, owner)
            self._feed(job, plan)
            return job

    def _submit(
        self, tasks: Sequence[TaskInput], priority: int = 0, owner: str | None = None
    ) -> tuple[Job, Plan]:
        with self._planning:
            plan = self.prepare(tasks, [Path.cwd()])
            if self._session.lasts:
                tell_plan(plan.summary, "tasks", WHY_MOVED)
            self.start()
            return self._begin(plan, priority, owner), plan

    def prepare(
        self,
        inputs: Inputs,
        lora_folders: Sequence[Path],
    ) -> Plan:
        """Check inputs against settings, files and ledger, without any worker.

        Of a large input, where no earlier result can be there, only the first part is looked at:
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
            first = session.claims.reserve_numbers(len(inputs))
            folders = [*lora_folders, user_path(self.settings.lora_dir, "lora_dir")]
            kind = GenerateKind(self._layers, LoraFinder(folders, self._inspector))
            admission = Admission(
                kind,
                self.settings.workers.decisive(self.model.deciding),
                self.settings.dtype,
                session.root,
                lambda position: self._default_name(first + position),
                self.settings.seed,
                kept_seed,
                claims,
            )
            streams = len(inputs) > FIRST and session.is_fresh
            by_sizes = streams and self._engine is None and self._memory.goes_by_sizes
            if by_sizes:
                inputs = list(inputs)  # it is read twice
            left, first_part = iter(inputs), FIRST if streams else len(inputs)
            items = [admission.admit(i, x) for i, x in enumerate(islice(left, first_part))]
            planner = session.planner(self.model.loras)
            known = planner.known(items)
            if self._engine is None:
                asked = [item.task for item in items if isinstance(item, Admitted)]
                if by_sizes:
                    asked += shapes_of(kind, inputs)
                demand = demand_of(asked, self.settings.workers.max_resident_loras)
                items = self._memory.settle(items, {} if session.overwrite else known, demand)
            plan = session.begin(planner, items, known, claims)
            if streams:
                rest = len(inputs) - first_part
                plan.continue_with(
                    Remaining(left, first_part, rest, admission, self._memory.remade)
                )
            self._prepared = bool(plan.to_run)
            return plan

    def execute(self, plan: Plan, timeout: float | None = None) -> list[Result]:
        """Run a prepared batch on the started workers; see `generate_batch`."""
        with self._callers.inside():
            return self._finish(self._begin(plan), plan, timeout)

    def _begin(self, plan: Plan, priority: int = 0, owner: str | None = None) -> Job:
        engine = self._running_engine()
        job = self._session.submit(
            engine, plan, plan.tasks, plan.settled, priority, owner, self._tell
        )
        with self._planning:
            self._jobs = [*(known for known in self._jobs if not known.finished), job]
        if self._stopping or self._closing:  # asked for before there was a job
            job.stop(INTERRUPTED)
        return job

    def _feed(self, job: Job, plan: Plan, look: Callable[[], None] = lambda: None) -> None:
        planner = self._session.planner(self.model.loras)
        self._session.feed(self._running_engine(), job, planner, plan, look)

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
            raise
        finally:
            if all(known.finished for known in self._jobs):
                self._stopping = False  # the next batch is another one
        self.tables_error = job.records_error
        return job.results()

    def _own(self) -> None:
        """Take it for this process, or say whose it is: neither workers nor ledger can be shared.

        Raises:
            LedgerError: this process is a fork of the one that works with it.
        """
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
            job.stop(INTERRUPTED)

    def abandon(self) -> None:
        """Close all jobs as interrupted at once; safe in a signal handler."""
        for job in self._jobs:
            job.close("interrupted", INTERRUPTED_AT_ONCE)

    def _tell(self, event: Event) -> None:
        """A listener that raises must not take the engine with it."""
        try:
            self.listener(event)
        except Exception:
            logger.exception("The listener failed; the run goes on.")

    def _default_name(self, position: int) -> str:
        name = f"image_{position:04d}{self.settings.workers.picture_suffix}"
        if self._session.lasts:
            return name
        folder = user_path(self.settings.output_dir, "output_dir")
        return as_text(folder / self._run_name / name)


class _Callers:
    """Threads that are inside a call; whoever stops the generator waits for the others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}  # calls by thread: a signal handler interrupts its own

    @contextmanager
    def inside(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                self._changed.notify_all()

    def wait_for_others(self, timeout: float) -> bool:
        """Wait until no other thread is inside; False if one still is."""
        me = threading.get_ident()

        def alone() -> bool:
            return not self._inside.keys() - {me}

        with self._changed:
            return self._changed.wait_for(alone, timeout)


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())
