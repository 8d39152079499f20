"""One benchmark run: pairs to edits to scores, on one ledger, through two kinds of worker.

The stages differ only in who has the devices when. Everything here runs in the caller's
thread; what the pools have to say arrives in one queue.
"""

import os
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.engine.batch import Batch
from core.engine.worker_pool import WorkerPool, fetch_for
from loguru import logger

from apps.edit_benchmark.editing import Edit
from apps.edit_benchmark.models import EDITOR, EDITOR_DEMAND, judge_demand, judge_model
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.settings import BenchmarkSettings
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device, choose_devices, memory_in_use
from core.devices.memory_choice import MemoryChoice, demand_of
from core.devices.model_choice import ModelChoice, choose_drawing_model
from core.devices.sharing import share_out
from core.devices.worker_specs import spec_for
from core.engine.worker_log import WorkerLog
from core.errors import InputError
from core.events import Event, Listener, TaskEnded, TaskReopened, TaskSpared, ignore
from core.index_files import MODEL_INDEX, PIPELINE_INDEX
from core.intake.admission import Admission, Admitted, Rejected
from core.intake.changes import Change
from core.intake.kinds.edit import EditKind
from core.intake.kinds.score import ScoreKind
from core.intake.plan_summary import PlanSummary, Standing
from core.intake.planning import Planner, tell_plan
from core.intake.task_kinds import Contents, LoraFinder
from core.judge import Judge, load_judge
from core.memory_modes import refuse_unusable
from core.paths import as_text, on_disk, user_path
from core.processes.model_fetch import ModelFetch
from core.seeds import seed_of_task
from core.settings import EditDefaults
from core.store.folder_input import FolderInput
from core.store.ledger import Ledger
from core.store.ledger_entry import entry_for
from core.store.outputs import OutputRoot
from core.store.provenance import read_provenance
from core.streams import occupy_standard_descriptors
from core.tasks import EditTask, Result, ScoreTask
from core.worker_spec import Role, WorkerSpec

WAIT_SLICE = 0.5  # seconds between looks at an interrupt
POLL = 0.1  # seconds between looks at GPU memory
TOLERANCE = 256 * 1024**2  # bytes of GPU memory that may stay in use
WHY_MOVED = "Pairs stand at other places in the data than before, and seeds go by the place."


@dataclass(frozen=True)
class PairResult:
    """What became of one pair: its edit, and its score if there was an edit."""

    pair: Pair
    edit: Result
    score: Result | None = None


@dataclass(frozen=True)
class PoolEvent:
    """A task of a role has its record, or a worker of a role gave its device up."""

    role: Role
    result: Result | None = None
    device: Device | None = None


class EditBenchmark:
    """Edits and scores a set of pairs; use it as a context manager.

    Args:
        device_ids: which of the visible GPUs, instead of the settings'.
        config_folder: where the judge's prompt file is looked up first.
        retry_unparsed: ask the judge once more than before where its verdict has no score.
        data: what the pairs are read from. The output folder remembers it, and refuses another
            one, unless it is overwritten.
        listener: called with events (`core.events`) from the pools' threads.

    Raises:
        InputError: settings, devices, models or prompts cannot be used as they stand, or the
            output folder holds the results of other data.
        LedgerError, StorageError: the output folder cannot be used.
    """

    def __init__(
        self,
        settings: BenchmarkSettings,
        output_folder: Path,
        device_ids: list[int] | None = None,
        config_folder: Path | None = None,
        overwrite: bool = False,
        retry_quarantined: bool = False,
        retry_unparsed: bool = False,
        data: Path | None = None,
    ) -> None:
        occupy_standard_descriptors()
        self.settings = settings
        self._inspector = LoraInspector()
        self.devices, self.judge_devices = _devices(settings, device_ids)
        editor = choose_drawing_model(
            settings.editor,
            self.devices,
            self._lora_folders(),
            self._inspector,
            EDITOR,
            "edit",
            "editor.model_loras",
        )
        found_judge, judge_settings = judge_model(settings, self.judge_devices)
        self.judge = judge = load_judge(judge_settings, config_folder)
        self._editor_memory = MemoryChoice(
            editor,
            settings.editor.memory,
            self.devices,
            "edit",
            PIPELINE_INDEX,
            lambda model: settings.workers.decisive(model.deciding),
            "editor.memory",
        )
        self._judge_memory = MemoryChoice(
            found_judge,
            settings.judge.memory,
            self.judge_devices,
            "score",
            MODEL_INDEX,
            lambda model: judge.identity(model.deciding),
            "judge.memory",
            "parts" if self.judge.type.chats else "clip",
        )
        on_cpu = self.devices[0].kind == "cpu"
        refuse_unusable(editor.memory, "edit", on_cpu, "editor.memory")
        refuse_unusable(found_judge.memory, "score", on_cpu, "judge.memory")
        self.judge_name = self.judge.name(self.judge_model.identity)
        self.listener: Listener = ignore
        self.root = OutputRoot(output_folder)
        self._claim = FolderInput(self.root.folder, data, overwrite) if data else None
        if self._claim is not None:
            self._claim.check()  # before anything is touched; again when the folder is ours
        self._ledger = Ledger.open(self.root.folder)
        self._overwrite = overwrite
        self._planner = Planner(
            self._ledger, self.root, overwrite, retry_quarantined, self.editor.loras
        )
        self._retry_unparsed = retry_unparsed and self.judge.type.varies
        if retry_unparsed and not self._retry_unparsed:
            kind = self.judge.settings.type
            logger.warning(f"--retry-unparsed: a judge of type {kind} says the same each time.")
        self._events: queue.SimpleQueue[PoolEvent] = queue.SimpleQueue()
        self._pools: dict[Role, WorkerPool] = {}
        self._fetches: dict[Role, ModelFetch] = {}  # of roles that have no pool yet
        self._log = WorkerLog()
        self._batches: dict[Role, Batch] = {}
        self._pairs: list[Pair] = []
        self._edits: dict[int, Result] = {}
        self._scores: dict[int, Result] = {}
        self._edit_jobs: list[Admitted] = []
        self._edit_contents: dict[str, Contents] = {}  # by the key of the edit's output
        self._stopping = False

    @property
    def editor(self) -> ModelChoice:
        """The model that edits, and how it is loaded."""
        return self._editor_memory.model

    @property
    def judge_model(self) -> ModelChoice:
        """The model that scores, and how it is loaded."""
        return self._judge_memory.model

    def __enter__(self) -> "EditBenchmark":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs and close the ledger."""
        for role in list(self._pools):
            self._stop_pool(role, at_once=True)
        for fetch in self._fetches.values():
            fetch.stop()
        self._log.close()
        self._ledger.close()

    # -- planning ----------------------------------------------------------

    def prepare(self, pair_set: PairSet) -> None:
        """Check every pair and compare with what earlier runs left.

        Raises:
            InputError: what they left is of other data, or a LoRA of the settings is not there.
        """
        self._pairs = pair_set.pairs
        loras = LoraFinder(self._lora_folders(), self._inspector)
        layers = self.settings.editor.layers(*self.editor.names)
        _check_default_loras(layers, loras)
        kind = EditKind(layers, loras)
        admission = Admission(
            kind,
            self.settings.workers.decisive(self.editor.deciding),
            self.editor.dtype,
            self.root,
            default_name=str,  # never needed: every pair names its output
            first_seed=self.settings.seed,
        )
        suffix = self.settings.workers.picture_suffix
        inputs = [_edit_input(pair, self.settings.seed, suffix) for pair in self._pairs]
        admitted = [admission.admit(i, given) for i, given in enumerate(inputs)]
        demand = demand_of(admitted, self.settings.workers.max_resident_loras)
        known = self._planner.known(admitted)
        counting = {} if self._overwrite else known
        admitted = self._editor_memory.settle(admitted, counting, demand)
        jobs = [item for item in admitted if isinstance(item, Admitted)]
        self._edit_contents = {job.output.key: job.contents for job in jobs}
        named = [_named(item, self._pairs) for item in admitted]
        plan = self._planner.begin(named, self._claim, known)
        self._plan = plan
        self._edit_jobs = plan.jobs
        self._edits = {r.position: r for r in plan.settled}
        self._score_admission = self._admission_of_scores()
        # Hashed once: an edit that stays is looked at for the plan, and scored after it.
        self._admitted = {edit.position: self._admit_score(edit) for edit in self.finished_edits()}
        self._settle_judge()
        self._score_summary = self._summary_of_scores(list(self._admitted.values()))

    def _admission_of_scores(self) -> Admission:
        return Admission(
            ScoreKind(),
            self.judge.identity(self.judge_model.deciding),
            self.judge.settings.dtype,
            self.root,
            default_name=str,
            first_seed=self.settings.seed,
        )

    def _settle_judge(self) -> None:
        """Decide how the judges load their model, if any edit is to be scored."""
        items = list(self._admitted.values())
        demand = judge_demand(self.judge.settings)
        known = {} if self._overwrite else self._planner.known(items)
        settled = self._judge_memory.settle(items, known, demand)
        self._admitted = dict(zip(self._admitted, settled, strict=True))
        if self._edit_jobs:
            self._judge_memory.ensure(demand)
        self._score_admission = self._admission_of_scores()

    def _lora_folders(self) -> list[Path]:
        """Where relative paths of LoRAs are looked up."""
        return [Path.cwd(), user_path(self.settings.lora_dir, "lora_dir")]

    def _summary_of_scores(self, admitted: Sequence[Admitted | Rejected]) -> PlanSummary:
        """How the verdicts stand: those on edits that stay, and those on edits to be made."""
        standings: list[tuple[Standing, list[Change]]] = []
        for item, (standing, changes) in zip(admitted, self._planner.look(admitted), strict=True):
            if standing == "unchanged" and isinstance(item, Admitted) and self._lacks_score(item):
                standing, changes = "changed", [Change("unparsed, asked again")]
            standings.append((standing, changes))
        for job in self._edit_jobs:
            verdict = self.root.folder / on_disk(self._verdict_of(self._pairs[job.position]))
            if not verdict.exists():
                standings.append(("new", []))
            elif self._plan.replaced is None:
                standings.append(("again", []))
            else:
                standings.append(("changed", [Change("edited picture")]))
        return PlanSummary.of(standings)

    def _tell_plan(self) -> None:
        """Say what is about to be done, where there is anything to do."""
        if self._edit_jobs:
            tell_plan(self._plan.summary, "pairs", WHY_MOVED, "Plan for edits")
        to_score = self._score_summary
        if to_score.counts.total() > to_score.counts["unchanged"]:
            tell_plan(to_score, "pairs", WHY_MOVED, "Plan for scores")

    def _admit_score(self, edit: Result) -> Admitted | Rejected:
        pair = self._pairs[edit.position]
        task = ScoreTask(
            pair.instruction,
            pair.source_images,
            as_text(str(edit.output_path)),
            seed=seed_of_task(self.settings.seed, pair.index),
            output_path=self._verdict_of(pair),
            task_id=f"score {pair.name}",
            metadata={"category": pair.category},
        )
        return self._score_admission.admit(edit.position, task)

    def _score_job(self, edit: Result) -> Admitted | None:
        """The job that scores a finished edit; None if its score is settled."""
        admitted = self._admitted.pop(edit.position, None) or self._admit_score(edit)
        [item] = self._planner.add(self._plan, [admitted])
        if isinstance(item, Result) and item.status == "skipped" and isinstance(admitted, Admitted):
            item = self._asked_again(admitted) or item
        if isinstance(item, Admitted):
            return item
        if not item.success:
            logger.error(f"{item.task_id}: {item.status}: {item.error}")
        self._scores[item.position] = item
        self.listener(TaskEnded(item))
        return None

    def _asked_again(self, scored: Admitted) -> Admitted | None:
        """The same with one ask more, if its verdict has no score and the user wants one."""
        if self._stopping or not self._lacks_score(scored):
            return None
        assert isinstance(scored.task, ScoreTask)
        verdict = read_provenance(scored.output.file)
        more = verdict["task"].get("more_asks", 0) + 1
        again = self._score_admission.admit(scored.position, replace(scored.task, more_asks=more))
        if not isinstance(again, Admitted):  # asked as often as a task can say
            return None
        self._ledger.set_state(entry_for(again, "pending"), self._plan.batch)
        return again

    def _lacks_score(self, scored: Admitted) -> bool:
        """Whether a verdict is to be asked for again."""
        if not self._retry_unparsed:
            return False
        try:
            used = read_provenance(scored.output.file).get("used")
        except ValueError:  # removed or damaged since it was looked at
            return False
        return isinstance(used, dict) and used.get("scores", ()) is None

    def _verdict_of(self, pair: Pair) -> str:
        """Where the judge's verdict lies, relative to the results' folder."""
        return f"scores/{self.judge_name}/{pair.name}.json"

    # -- running -----------------------------------------------------------

    def run(self) -> list[PairResult]:
        """Edit and score; one record per pair, in input order."""
        from apps.edit_benchmark.overlapped import run_overlapped
        from apps.edit_benchmark.sequential import run_sequential

        for result in self._edits.values():
            if not result.success:
                logger.error(f"{result.task_id}: {result.status}: {result.error}")
                self.listener(TaskSpared())
            self.listener(TaskEnded(result))
        there = len(self.finished_edits())
        if there and not self._edit_jobs:  # else the plan says it
            logger.info(f"{there} of {len(self._pairs)} edits are there already.")
        self._tell_plan()
        self._begin_to_fetch()
        overlapped = self.settings.stages == "overlapped"
        if overlapped and len(self.devices) == 1:
            logger.info("stages: one worker cannot be shared out; editing comes first.")
            overlapped = False
        (run_overlapped if overlapped else run_sequential)(self)
        if self._plan.replaced is not None:
            self._plan.replaced.write_tables()
        return self.results()

    def results(self) -> list[PairResult]:
        """One record per pair, in input order."""
        return [
            PairResult(pair, self._edits[i], self._scores.get(i))
            for i, pair in enumerate(self._pairs)
        ]

    def stop_leasing(self) -> None:
        """Finish what runs; safe in a signal handler."""
        self._stopping = True
        for pool in list(self._pools.values()):
            pool.stop_leasing()

    def abandon(self) -> None:
        """Close everything as interrupted at once; safe in a signal handler."""
        self._stopping = True
        for pool in list(self._pools.values()):
            pool.abandon("interrupted", "Not finished: the run was interrupted.")

    def edits_made(self) -> list[Edit]:
        """How each finished edit was made."""
        entries = self._ledger.entries_of(list(self._edit_contents)).values()
        done = [(entry, self._edit_contents[entry.key]) for entry in entries]
        return [
            Edit(entry.task, entry.used, contents.lora, contents.loras)
            for entry, contents in done
            if entry.state == "done"
        ]

    # -- for the stages ----------------------------------------------------

    @property
    def stopping(self) -> bool:
        """The user asked for the end."""
        return self._stopping

    @property
    def edit_jobs(self) -> list[Admitted]:
        """Edits that have to be made."""
        return self._edit_jobs

    def finished_edits(self) -> list[Result]:
        """Edits that are there, of this run and of earlier ones."""
        return [r for _, r in sorted(self._edits.items()) if r.success]

    def score_jobs(self) -> list[Admitted]:
        """Jobs for all finished edits whose score is not settled.

        After an interrupt, only edits that have a verdict are looked at: it may still be theirs.
        """
        jobs = []
        for edit in self.finished_edits():
            verdict = self.root.folder / on_disk(self._verdict_of(self._pairs[edit.position]))
            if not self._stopping or verdict.exists():
                jobs.append(self._score_job(edit))
        due = [job for job in jobs if job is not None]
        again = sum(isinstance(j.task, ScoreTask) and j.task.more_asks > 0 for j in due)
        if again:
            logger.info(f"{again} verdicts without a score are asked for again.")
        return due

    def start_pool(
        self, role: Role, devices: list[Device], jobs: list[Admitted], open_ended: bool = False
    ) -> WorkerPool:
        """Workers for one role, at work on `jobs`."""
        memory = self._judge_memory if role == "score" else self._editor_memory
        memory.ensure(EDITOR_DEMAND)  # as where a result was removed after the planning
        model, _ = self._model(role)
        fetch = self._fetches.pop(role, None)
        if fetch is not None and fetch.refusal is not None:
            fetch = None  # asked again: what it was refused for may be mended
        logger.info(model.reason.replace("Model:", f"{role.capitalize()} with:", 1))
        pool = WorkerPool(
            [(d, self._spec(d, role)) for d in devices],
            self.settings,
            self._told(role),
            self.settings.enable_batch_sync,
            lambda device: self._events.put(PoolEvent(role, device=device)),
            self._log,
            fetch,
            memory,
        )
        batch = Batch(
            jobs,
            [],
            self._ledger,
            self.root,
            self.settings.supervision,
            self.settings.scheduling.max_passed_over,
            self._told(role),
            open_ended,
            self._plan.replaced,
            self._plan.batch,
        )
        self._pools[role], self._batches[role] = pool, batch
        pool.start()
        pool.submit(batch)
        if self._stopping:
            pool.stop_leasing()
        return pool

    def _begin_to_fetch(self) -> None:
        """Both hub models, one after the other: no device shall wait for the judge's later."""
        roles: list[Role] = ["edit"] if self._edit_jobs else []
        if self._score_summary.counts.total() > self._score_summary.counts["unchanged"]:
            roles.append("score")
        before: ModelFetch | None = None
        for role in roles:
            spec = self._spec(self.devices[0], role)
            fetch = fetch_for(spec, self.settings.supervision, self._told(role))
            if fetch is not None:
                self._fetches[role] = fetch
                fetch.on_change = partial(self._warn_of_refusal, role, fetch)
                fetch.start(before)
                before = fetch

    def _warn_of_refusal(self, role: Role, fetch: ModelFetch) -> None:
        """While other work goes on, which leaves time to mend it."""
        if fetch.refusal is not None and self._fetches.get(role) is fetch:
            logger.warning(f"The model to {role} with cannot be had as yet: {fetch.refusal}")

    def move_to(self, role: Role, device: Device) -> None:
        """Give a device that became free to a role's pool."""
        self._pools[role].adopt(device, self._spec(device, role))

    def _spec(self, device: Device, role: Role) -> WorkerSpec:
        model, judge = self._model(role)
        # Where both roles are at work, they have as many workers together.
        count = len(self.judge_devices if role == "score" else self.devices)
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        return spec_for(device, role, model, self.settings, threads, judge)

    def _model(self, role: Role) -> tuple[ModelChoice, Judge | None]:
        return (self.judge_model, self.judge) if role == "score" else (self.editor, None)

    def batch(self, role: Role) -> Batch:
        return self._batches[role]

    def pool(self, role: Role) -> WorkerPool:
        return self._pools[role]

    def next_event(self) -> PoolEvent | None:
        """What a pool has to say, noted; None after a moment without."""
        try:
            event = self._events.get(timeout=WAIT_SLICE)
        except queue.Empty:
            return None
        if event.result is not None:
            table = self._edits if event.role == "edit" else self._scores
            table[event.result.position] = event.result
        return event

    def wait(self, role: Role) -> None:
        """Until every task of a role has its record."""
        while not self._batches[role].wait(WAIT_SLICE):
            pass
        self.note_events()

    def note_events(self) -> None:
        """Note what the pools have said so far."""
        while not self._events.empty():
            self.next_event()

    def score(self, jobs: list[Admitted]) -> None:
        """Score with all devices, and nothing else; nothing new after an interrupt."""
        if jobs and not self._stopping:
            self._score_on(self.judge_devices[: len(jobs)], jobs)

    def score_again(self, jobs: list[Admitted]) -> None:
        """Score what was closed because no judge was left, with fresh ones on all devices."""
        if jobs and not self._stopping:
            logger.warning(f"{len(jobs)} edits lost their judges; all devices score them now.")
            for _ in jobs:
                self.listener(TaskReopened())
            self._score_on(self.judge_devices, jobs)

    def _score_on(self, devices: list[Device], jobs: list[Admitted]) -> None:
        self.start_pool("score", devices, jobs)
        self.wait("score")
        self.stop_pool("score")

    def add_score(self, edit: Result) -> None:
        """Have a new edit scored by the running judges."""
        job = self._score_job(edit)
        if job is not None:
            self._pools["score"].extend(job)

    def _stop_pool(self, role: Role, at_once: bool = False) -> None:
        pool = self._pools.get(role)
        if pool is None:
            return
        pool.stop(at_once)
        self._batches[role].sweep()
        del self._pools[role]  # only now: until here a second Ctrl-C has to reach it
        if pool.barrier is not None and pool.barrier.steps:
            logger.info(
                f"enable_batch_sync: workers waited {pool.barrier.waited:.1f} s for each other "
                f"in {pool.barrier.steps} steps."
            )

    def stop_pool(self, role: Role) -> None:
        """Stop a role's workers by poison pill."""
        self._stop_pool(role, at_once=self._stopping)

    def wait_for_memory(self, devices: list[Device], before: int | None) -> None:
        """Until the GPU memory that stopped workers held has come free; says so."""
        if before is None:
            return
        end = time.monotonic() + self.settings.vram_release_timeout
        while True:
            if self._stopping:  # nobody will need it
                return
            kept = (memory_in_use(devices) or 0) - before
            if kept <= TOLERANCE or time.monotonic() > end:
                break
            time.sleep(POLL)
        gib = f"{max(0, kept) / 1024**3:.1f} GiB"
        if kept > TOLERANCE:
            logger.warning(f"The editors left, but {gib} of GPU memory stay in use.")
        else:
            logger.info(f"The editors left their GPUs; {gib} more in use than before them.")

    def _told(self, role: Role) -> Callable[[Event], None]:
        def tell(event: Event) -> None:
            if isinstance(event, TaskEnded):
                self._events.put(PoolEvent(role, event.result))
            try:
                if role == "edit" and isinstance(event, TaskEnded) and not event.result.success:
                    self.listener(TaskSpared())
                self.listener(event)
            except Exception:
                logger.exception("The listener failed; the run goes on.")

        return tell


def _devices(
    settings: BenchmarkSettings, device_ids: list[int] | None
) -> tuple[list[Device], list[Device]]:
    """One per worker, of the editors and of the judges."""
    ids = device_ids if device_ids is not None else settings.device_ids
    devices = choose_devices(None, ids, settings.device)
    if devices[0].kind == "cpu" and ids is None:
        devices = choose_devices(settings.cpu_workers, None, settings.device)
    shares = [settings.shares_of(role) for role in (settings.editor, settings.judge)]
    devices_of = {}
    for gpus, workers in dict.fromkeys(shares):
        chosen = devices[: gpus or 1] if settings.parallel_mode == "single" else devices
        devices_of[gpus, workers] = share_out(chosen, gpus, workers, asked_for=ids is not None)
    editors, judges = (devices_of[share] for share in shares)
    return editors, judges


def _check_default_loras(layers: Sequence[EditDefaults], loras: LoraFinder) -> None:
    """Raises InputError once for a LoRA of the settings that would fail every pair."""
    for layer in layers:
        try:
            loras.find(layer.lora_path)
        except InputError as error:
            raise InputError(f"editor.defaults.{error}") from None


def _edit_input(pair: Pair, first_seed: int, suffix: str) -> Any:
    if pair.problem is not None:
        return pair.problem
    return EditTask(
        pair.instruction,
        pair.source_images,
        seed=seed_of_task(first_seed, pair.index),  # the same whatever part of the data is run
        output_path=f"edits/{pair.name}{suffix}",
        task_id=pair.name,
        metadata={"category": pair.category, **pair.metadata},
    )


def _named(item: Admitted | Rejected, pairs: list[Pair]) -> Admitted | Rejected:
    """A rejected pair keeps its name."""
    if isinstance(item, Admitted):
        return item
    return replace(item, task_id=pairs[item.position].name)
