"""`MultiGPUImageGenerator`: jobs and batches of pictures, edits and scores on warm workers."""

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from core.batches import WAIT_SLICE, Batches
from core.callers import Callers
from core.checkpoints.asked_loras import Paths
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.engine.backend import WorkerBackend
from core.engine.job import Job
from core.engine_choice import Workplace, choose_workplace, server_of, with_engine
from core.errors import InputError, LedgerError, StorageError
from core.events import Event, Listener, ignore, tell
from core.intake.planning import Plan
from core.intake.task_kinds import Inputs, refuse_single_task
from core.messages import MOST_PREVIEWS
from core.paths import user_path
from core.remote.choice import with_or_without_server
from core.roles import Roles
from core.session import Session
from core.settings import Engine, Settings, load_settings
from core.status.notebook import in_notebook, progress_line, quieten_log
from core.status.run_status import RunStatus
from core.status.tracker import RunTracker
from core.store.folder_input import NoFile
from core.store.ledger import Entry
from core.store.ledger_copy import refuse_in_use
from core.streams import occupy_standard_descriptors
from core.tasks import Result, Task
from core.warm_models import WarmModels
from core.worker_spec import Role

if TYPE_CHECKING:
    from core.dry_run.run_plan import RunPlan
    from core.engine.snapshot import EngineSnapshot
    from core.remote.served_models import ServedModels, ServedRole


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
        engine: whose GPUs: `local` (this machine's) or `ray` (those of a Ray cluster's nodes), over
            the setting of that name; `num_gpus` counts those of all nodes.
        config: a YAML file, a mapping of settings, or Settings; laid over config/default.yaml. Its
            sections `editor`, `judge` and `judge_model_defaults`, for tasks that edit and score,
            are laid over those of config/edit_benchmark.yaml.
        output_dir: makes batches resumable: relative output paths lie below this folder,
            nothing is written outside it, its ledger remembers what is done, and unchanged
            pictures are not drawn again; what changed tasks replace is kept in `.replaced`.
            Without it output paths are taken as Python takes paths, and existing files are
            replaced.
        input_file: the file or folder that the tasks are read from, or what they come from in
            place of one. `output_dir` remembers it, and refuses another one.
        overwrite: draw pictures that are done too (of those whose seed is random, with new
            seeds), and replace files of unknown origin and what another `input_file` left.
        retry_quarantined: try tasks again that killed their workers in an earlier run.
        listener: called with events (`core.events`) from the engine's thread.
        backend: runs the workers; by default processes of this machine.
        tables: write `metadata.jsonl` and `results.jsonl` to `output_dir` at the end of each batch,
            and keep up `status.json` while one runs.
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
        engine: Engine | None = None,
        output_dir: str | Path | None = None,
        input_file: str | Path | NoFile | None = None,
        overwrite: bool = False,
        retry_quarantined: bool = False,
        listener: Listener = ignore,
        backend: WorkerBackend | None = None,
        tables: bool = True,
        dry_run: bool = False,
    ) -> None:
        occupy_standard_descriptors()
        if in_notebook():
            quieten_log()
        self.settings = load_settings(config)
        if engine is not None:
            self.settings = with_engine(self.settings, engine)
        self._dry_run = dry_run
        if self.settings.engine != "local" and output_dir is not None and not dry_run:
            refuse_in_use(Path(output_dir))  # before a cluster is waited for, perhaps in vain
        inspector = LoraInspector(may_download=not dry_run)
        folder = user_path(config, "config").parent if isinstance(config, str | Path) else None
        roles, self._server = with_or_without_server(
            "never" if backend is not None else server_of(self.settings),
            gpu_ids,
            lambda served: self._choose_roles(num_gpus, gpu_ids, inspector, folder, served),
        )
        given = (lambda: backend) if backend is not None else None
        self.listener = listener
        self._session = Session(
            None if output_dir is None else Path(output_dir),
            user_path(input_file, "input_file")
            if isinstance(input_file, str | Path)
            else input_file,
            overwrite,
            retry_quarantined,
            tables,
            with_status=tables,
        )
        self._owner: int | None = None  # the process that has the engine's thread and the ledger
        self._callers = Callers()
        planning = threading.RLock()
        self._models = WarmModels(
            roles,
            self._server,
            self.settings,
            inspector,
            given or (self._workplace.backend if self._workplace is not None else None),
            self._session.hearing(_listener_of(self)),
            self._session.tracker,
            planning,
        )
        self._batches = Batches(self.settings, self._session, self._models, inspector, planning)

    def _choose_roles(
        self,
        num_gpus: int | None,
        gpu_ids: Sequence[int] | None,
        inspector: LoraInspector,
        prompt_folder: Path | None,
        served: "ServedModels | None",
    ) -> Roles:
        devices: Sequence[Device] = ()
        self._workplace: Workplace | None = None
        if served is None:
            self._workplace = choose_workplace(self.settings, num_gpus, gpu_ids)
            devices = self._workplace.devices
        return Roles(
            self.settings,
            devices,
            num_gpus is not None or gpu_ids is not None,
            inspector,
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
        return self._models.roles.drawing.model

    def model_of(self, role: Role) -> ModelChoice:
        """The model for one kind of task ("generate", "edit" or "score"), chosen now if need be.

        That may read files and ask the driver for memory; no worker loads the model for it.

        Raises:
            InputError, DeviceError: it cannot be used as it is set.
        """
        return self._models.model_of(role)

    def takes_masks(self) -> bool:
        """Whether the model that edits takes masks, as far as that is known before it is loaded.

        Raises:
            InputError, DeviceError: as `model_of`.
        """
        return self._models.takes_masks()

    @property
    def devices(self) -> list[Device]:
        """Devices that draw, one for each worker."""
        return self._models.roles.drawing.devices

    @property
    def output_folder(self) -> Path:
        """The folder below which relative output paths lie."""
        return self._session.root.folder

    def status(self) -> RunStatus:
        """How the run stands: counts, speed, time left, workers and failures of its batches.

        A run begins with a batch and ends when no batch is left; `status.json` in `output_dir`
        says the same, at most a second late.
        """
        return self.tracker.status()

    @property
    def tracker(self) -> RunTracker:
        """Knows how the run stands; for views that look often."""
        return self._session.tracker

    @property
    def lora_counts(self) -> tuple[int, int]:
        """LoRA loads and switches of all workers so far."""
        return self._models.lora_counts

    @property
    def device_waits(self) -> list[float]:
        """Seconds for which devices had nothing to do before each of their newest tasks."""
        engine = self._models.engine
        return engine.device_waits if engine is not None else []

    @property
    def tables_error(self) -> StorageError | LedgerError | None:
        """Why the tables of the newest batch could not be written, if so."""
        return self._batches.tables_error

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
        self._batches.start_drawing()

    def served(self, role: Role) -> "ServedRole":
        """What another process must know of a model to have its tasks done by this one's workers.

        Raises:
            InputError, DeviceError: the model cannot be used here.
        """
        self._own()
        with self._callers.inside():
            return self._models.served_role(role)

    def warm(self, role: Role = "generate") -> None:
        """Have workers load the model of a role (generate, edit or score), and keep it.

        Raises:
            InputError, DeviceError: the model cannot be used here.
        """
        self._own()
        with self._callers.inside():
            self._models.warm(role)

    def unload(self, role: Role) -> None:
        """Let the workers of a model go, unless tasks wait; the next task loads it again."""
        self._models.unload(role)

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
        self._own()
        with self._callers.inside():
            self._models.load_loras(paths, pin, role)

    def unload_loras(self, paths: Paths, role: Role = "generate") -> None:
        """Take LoRAs out of workers' memory, pinned or not, until a task brings them again.

        A worker that is using one does so after that task. The files need not be there any more.

        Args:
            paths, role: as in `load_loras`.
        """
        with self._callers.inside():
            self._models.unload_loras(paths, role)

    def drain(self, worker: str) -> None:
        """Give a worker (such as gpu0) no more tasks, and end it after those that it has."""
        if self._models.engine is not None:
            self._models.engine.drain(worker)

    def undrain(self, worker: str) -> None:
        """Let a drained worker come back."""
        if self._models.engine is not None:
            self._models.engine.undrain(worker)

    def snapshot(self) -> "Future[EngineSnapshot]":
        """How workers and models stand."""
        return self._models.snapshot()

    def stop(self, at_once: bool = False) -> None:
        """Stop the workers by poison pill (or at once, by SIGKILL) and close the ledger.

        A batch that another thread runs or prepares ends as interrupted, with all its records.
        In a fork of the process that works with it, nothing happens: workers and folder stay with
        that one.
        """
        if self._owner not in (None, os.getpid()):
            return
        self._batches.closing = True
        while True:
            self._models.stop(at_once)
            if self._callers.wait_for_others(WAIT_SLICE):
                break
        self._models.stop(at_once)  # perhaps an engine that was started meanwhile
        self._session.close()
        if self._workplace is not None:
            self._workplace.close()
        self._models.forget()
        self._batches.forget()
        self._owner = None

    # -- batches -----------------------------------------------------------------

    def generate_batch(
        self,
        tasks: Sequence[Mapping[str, Any] | Task],
        timeout: float | None = None,
        progress: bool | None = None,
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
            progress: show one line that says how far the batch is, and how long it will take. By
                default in notebooks alone. For more see `status` and `listener`.

        Returns:
            One result per task, in input order. A bad task is a failed result, never an
            exception, and so are all tasks of a kind whose model cannot be used.

        Raises:
            InputError: the output folder holds the results of another input, or `tasks` is no list;
                nothing ran.
            LedgerError, StorageError: the output folder cannot be used; nothing ran.
        """
        refuse_single_task(tasks)
        self._own()
        shown = in_notebook() if progress is None else progress
        with self._callers.inside(), progress_line(self.tracker) if shown else nullcontext():
            return self._batches.finish(*self._batches.submit(tasks), timeout)

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
            InputError: `tasks` is no list, `previews` is no such number, or a `serve.py` does the
                work.
        """
        refuse_single_task(tasks)
        if type(previews) is not int or not 0 <= previews <= MOST_PREVIEWS:
            raise InputError(f"previews: must be 0 to {MOST_PREVIEWS} (found {previews!r}).")
        if previews and self._server is not None:
            raise InputError("previews: a server gives none here; set use_server: never for them.")
        self._own()
        with self._callers.inside():
            self._batches.forget_stop()
            job, plan = self._batches.submit(tasks, priority, owner, listener, previews)
            self._batches.feed(job, plan)
            return job

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
        return self._batches.prepare(inputs, lora_folders)

    def records(self) -> dict[str, Entry]:
        """What the output folder has on record: a ledger entry for each result, by its key.

        The folder is looked at and neither made, changed nor locked, so that it can be asked of a
        generator that only plans, too.

        Raises:
            LedgerError, StorageError: the record cannot be read.
        """
        with self._callers.inside():
            return self._session.entries()

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
        own = [Path.cwd()] if lora_folders is None else [Path(f) for f in lora_folders]
        with self._callers.inside():
            return self._batches.plan(tasks, own)

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
            return self._batches.finish(self._batches.begin(plan), plan, timeout)

    def run(self, plan: Plan, told: Callable[[Result], None]) -> None:
        """Run a prepared batch as `execute` does, and keep none of its results.

        So millions of tasks take no more memory than the first 100,000. The plan's own list of
        tasks is emptied.

        Args:
            told: takes each result, as it comes and in no order; from the engine's thread, or this
                one, and it must not raise.
        """
        with self._callers.inside():
            self._batches.run(plan, told)

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
        self._batches.stop_leasing()

    def abandon(self) -> None:
        """Close all jobs as interrupted at once; safe in a signal handler."""
        self._batches.abandon()


def _listener_of(generator: MultiGPUImageGenerator) -> Listener:
    """Calls a generator's listener of that moment, and does not keep the generator alive."""
    found = weakref.ref(generator)

    def call(event: Event) -> None:
        there = found()
        if there is not None:
            tell(there.listener, event)

    return call
