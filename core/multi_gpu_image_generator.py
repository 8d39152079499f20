"""`MultiGPUImageGenerator`: batches of pictures on warm, supervised workers."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
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
from core.devices.worker_specs import specs_for
from core.engine.batch import Batch
from core.engine.worker_pool import WorkerPool
from core.errors import LedgerError, StorageError
from core.events import Event, Listener, TaskEnded, ignore
from core.index_files import PIPELINE_INDEX
from core.intake.admission import Admission, Admitted, Rejected
from core.intake.kept_seeds import KeptSeeds
from core.intake.planning import Plan, Planner, tell_plan
from core.intake.task_kinds import GenerateKind, LoraFinder, TaskInput
from core.memory_modes import refuse_unusable
from core.paths import as_text, user_path
from core.settings import GenerationDefaults, Settings, load_settings
from core.store.claims import Claims
from core.store.folder_input import FolderInput
from core.store.ledger import Ledger
from core.store.outputs import OutputRoot
from core.store.tables import Tables, refuse_foreign_tables
from core.streams import occupy_standard_descriptors
from core.tasks import GenerateTask, Result

WAIT_SLICE = 0.5  # seconds: how long a blocked wait keeps Ctrl-C waiting on some platforms


class MultiGPUImageGenerator:
    """Generates pictures on one worker process per GPU.

    Use it as a context manager: workers start on entering, stay warm between batches, and
    stop on leaving::

        with MultiGPUImageGenerator(gpu_ids=[0, 2]) as generator:
            results = generator.generate_batch([{"prompt": "a red house", "seed": 1}])

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
        listener: called with events (`core.events`) from the pool's thread.

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
        self._resumable = output_dir is not None
        self._overwrite = overwrite or not self._resumable
        self._retry_quarantined = retry_quarantined
        self.listener = listener
        self._root = OutputRoot(Path(output_dir or "."), confined=self._resumable)
        self._claim: FolderInput | None = None
        if output_dir is not None and input_file is not None:
            source = user_path(input_file, "input_file")
            self._claim = FolderInput(self._root.folder, source, overwrite)
        self._ledger: Ledger | None = None
        self._tables: Tables | None = None  # where batches are resumable
        self._pool: WorkerPool | None = None
        self._owner: int | None = None  # the process that has the pool's thread and the ledger
        self._batch: Batch | None = None
        self._prepared = False  # a batch waits for workers
        self._stopping = False
        self._lora_counts = (0, 0)
        # Batches from several threads follow each other, and the last one's records the stop.
        self._one_batch = threading.RLock()
        self.tables_error: StorageError | LedgerError | None = None  # of the newest batch
        self._claims = Claims()
        # Not by the clock alone: it may be set back, and two runs may start in one second.
        self._session = f"{time.strftime('run_%Y%m%d_%H%M%S')}_{uuid4().hex[:6]}"

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
        return self._root.folder

    @property
    def lora_counts(self) -> tuple[int, int]:
        """LoRA loads and switches of all workers so far."""
        if self._pool is None:
            return self._lora_counts
        return (self._pool.lora_loads, self._pool.lora_switches)

    @property
    def device_waits(self) -> list[float]:
        """Seconds for which devices had nothing to do before each of their newest tasks."""
        return list(self._pool.waits) if self._pool is not None else []

    def use_at_most(self, workers: int) -> None:
        """Do without the last workers if fewer are needed; call it before `start`."""
        self.devices = self.devices[: max(1, workers)]

    def start(self) -> None:
        """Start the workers; returns at once, and does nothing the second time.

        On GPUs, where the output folder holds finished pictures, they start with the first batch:
        its tasks tell in which memory mode these were drawn.

        Raises:
            DeviceError: the model does not fit into the GPUs' memory.
        """
        self._own()
        if self._pool is None and not self._waits_for_tasks():
            self._memory.ensure(usual_demand(self._layers))
            logger.info(self.model.reason)
            self._pool = WorkerPool(
                specs_for(self.devices, "generate", self.model, self.settings),
                self.settings,
                self._tell,
                memory=self._memory,
            )
            self._pool.start()

    def _waits_for_tasks(self) -> bool:
        if self._prepared or not self._memory.is_open or not self._resumable or self._overwrite:
            return False
        return bool((self._ledger or self._open_ledger()).finished())

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
        self._stopping = True
        if self._pool is not None:
            self._pool.stop(at_once)
        with self._one_batch:
            if self._pool is not None:  # perhaps one that was started meanwhile
                self._pool.stop(at_once)
                self._lora_counts = self.lora_counts
            if self._batch is not None:
                self._batch.sweep()
            if self._tables is not None:
                self._tables.close()
            if self._ledger is not None:
                self._ledger.close()
            self._pool = self._ledger = self._tables = self._batch = self._owner = None
            self._stopping = False

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
        self._own()
        with self._one_batch:
            plan = self.prepare(tasks, [Path.cwd()])
            if self._resumable:
                tell_plan(
                    plan.summary, "tasks", "Without a seed of its own a task gets one by its place."
                )
            self.start()
            return self.execute(plan, timeout)

    def prepare(
        self,
        inputs: Sequence[TaskInput],
        lora_folders: Sequence[Path],
    ) -> Plan:
        """Check inputs against settings, files and ledger, without any worker.

        Args:
            inputs: tasks; an InputError stands for an input that its reader could not read.
            lora_folders: where relative LoRA paths are looked up before the configured folder.
        """
        self._own()
        ledger = self._ledger or self._open_ledger()
        claims = self._claims.begin()
        first = self._claims.reserve_numbers(len(inputs))
        folders = [*lora_folders, user_path(self.settings.lora_dir, "lora_dir")]
        admission = Admission(
            GenerateKind(self._layers, LoraFinder(folders, self._inspector)),
            self.settings.workers.decisive(self.model.deciding),
            self.settings.dtype,
            self._root,
            lambda position: self._default_name(first + position),
            self.settings.seed,
            None if self._overwrite else KeptSeeds(ledger).of,
            claims,
        )
        admitted: list[Admitted | Rejected] = [admission.admit(i, x) for i, x in enumerate(inputs)]
        planner = Planner(
            ledger, self._root, self._overwrite, self._retry_quarantined, self.model.loras
        )
        known = planner.known(admitted)
        if self._pool is None:
            demand = demand_of(admitted, self.settings.workers.max_resident_loras)
            counting = {} if self._overwrite else known
            admitted = self._memory.settle(admitted, counting, demand)
        plan = planner.begin(admitted, self._claim, known, claims)
        self._prepared = bool(plan.jobs)
        return plan

    def execute(self, plan: Plan, timeout: float | None = None) -> list[Result]:
        """Run a prepared batch on the started workers; see `generate_batch`."""
        with self._one_batch:
            return self._execute(plan, timeout)

    def _execute(self, plan: Plan, timeout: float | None) -> list[Result]:
        assert self._ledger is not None
        batch = self._batch = Batch(
            plan.jobs,
            plan.settled,
            self._ledger,
            self._root,
            self.settings.supervision,
            self.settings.scheduling.max_passed_over,
            partial(self._note, plan),
            replaced=plan.replaced if self._resumable else None,
            number=plan.batch,
        )
        if self._tables is not None:
            self._tables.begin(plan)
        try:
            if plan.jobs:
                assert self._pool is not None
                self._pool.submit(batch)
                if self._stopping:  # asked for before there was a batch
                    self._pool.stop_leasing()
                self._wait(batch, timeout)
        except BaseException:
            if self._tables is not None:
                self._tables.abandon(plan)
            if plan.claims is not None:
                plan.claims.release_all()
            raise
        results = batch.results()
        self._write_tables(plan, results)
        if plan.claims is not None:
            plan.claims.release_all()
        if self._ledger is not None:  # a signal handler may have stopped the generator meanwhile
            self._ledger.end_batch(plan.batch)
        return results

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
        """Finish what runs and close the batch as interrupted; safe in a signal handler."""
        self._stopping = True
        if self._pool is not None:
            self._pool.stop_leasing()

    def abandon(self) -> None:
        """Close the batch as interrupted at once; safe in a signal handler."""
        if self._pool is not None:
            self._pool.abandon("interrupted", "Not finished: the run was interrupted.")

    def _wait(self, batch: Batch, timeout: float | None) -> None:
        assert self._pool is not None
        end = None if timeout is None else time.monotonic() + timeout
        while not batch.wait(WAIT_SLICE if end is None else min(WAIT_SLICE, _left(end))):
            if end is not None and _left(end) == 0:
                reason = f"Not finished within the timeout of {timeout:g} s."
                self._pool.abandon("timeout", reason)
                end = None

    def _note(self, plan: Plan, event: Event) -> None:
        """Add a record to the table as it comes, so that a run that is killed has its table."""
        tables = self._tables
        if tables is not None and isinstance(event, TaskEnded) and event.result.worker is not None:
            tables.results.add(plan.batch, [event.result])
        self._tell(event)

    def _tell(self, event: Event) -> None:
        """A listener that raises must not take the pool with it."""
        try:
            self.listener(event)
        except Exception:
            logger.exception("The listener failed; the run goes on.")

    def _default_name(self, number: int) -> str:
        name = f"image_{number:04d}{self.settings.workers.picture_suffix}"
        if self._resumable:
            return name
        folder = user_path(self.settings.output_dir, "output_dir")
        return as_text(folder / self._session / name)

    def _open_ledger(self) -> Ledger:
        if self._resumable:
            if self._claim is not None:
                self._claim.check()  # before anything is touched; again when the folder is ours
            if not self._overwrite:
                refuse_foreign_tables(self._root.folder)
            self._ledger = Ledger.open(self._root.folder)
            self._tables = Tables(self._root.folder, self._ledger)
        else:
            self._ledger = Ledger.in_memory()
        return self._ledger

    def _write_tables(self, plan: Plan, results: Sequence[Result]) -> None:
        self.tables_error = None
        if self._tables is None:
            return
        try:
            self._tables.write(plan, results)
            if plan.replaced is not None:
                plan.replaced.write_tables(any(r.status == "interrupted" for r in results))
        except (StorageError, LedgerError) as error:
            self.tables_error = error
            logger.error(f"The metadata could not be written: {error}")


def _left(end: float) -> float:
    return max(0.0, end - time.monotonic())
