"""One benchmark run: pairs to edits to scores, as two jobs of one engine.

A score is asked for as soon as its edit is there. Who has which model when is the engine's
matter; `stages` in the settings is a bound on that. Everything here runs in the caller's thread.
"""

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from apps.edit_benchmark.editing import Edit
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.planned import plan_benchmark
from apps.edit_benchmark.roles import choose_roles, workplace_of
from apps.edit_benchmark.scores import Scores
from apps.edit_benchmark.settings import BenchmarkSettings
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.dry_run.planner import quiet
from core.dry_run.run_plan import RunPlan
from core.engine.backend import WorkerBackend
from core.engine.job import Job
from core.engine.model_switch import Stages
from core.engine.task_engine import TaskEngine
from core.engine_choice import server_of
from core.errors import InputError
from core.events import (
    Event,
    Listener,
    TaskEnded,
    TaskShape,
    TaskSpared,
    ignore,
    shape_of,
    tell,
)
from core.intake.admission import Admission, Admitted, Item
from core.intake.kinds.edit import EditKind
from core.intake.plan_summary import PlanSummary
from core.intake.planning import Plan, tell_plan
from core.intake.task_kinds import Contents, LoraFinder
from core.judge import Judge
from core.paths import user_path
from core.remote.choice import with_or_without_server
from core.remote.server import Server
from core.role_model import RoleModel
from core.seeds import seed_of_task
from core.session import Session
from core.settings import EditDefaults
from core.status.run_status import RunStatus
from core.status.tracker import RunTracker
from core.store.outputs import OutputRoot
from core.streams import occupy_standard_descriptors
from core.tasks import EditTask, Result
from core.worker_spec import Role

if TYPE_CHECKING:
    from core.remote.served_models import ServedModels

WAIT_SLICE = 0.5  # seconds between looks at an interrupt
WHY_MOVED = "Pairs stand at other places in the data than before, and seeds go by the place."


@dataclass(frozen=True)
class PairResult:
    """What became of one pair: its edit, and its score if there was an edit."""

    pair: Pair
    edit: Result
    score: Result | None = None


class EditBenchmark:
    """Edits and scores a set of pairs; use it as a context manager.

    Args:
        device_ids: which of the visible GPUs, instead of the settings'.
        config_folder: where the judge's prompt file is looked up first.
        retry_unparsed: ask the judge once more than before where its verdict has no score.
        data: what the pairs are read from. The output folder remembers it, and refuses another
            one, unless it is overwritten.
        backend: runs the workers; by default processes of this machine.
        dry_run: the folder is only looked at, and `plan` is all that is asked for.

    Attributes:
        listener: called with events (`core.events`) from the engine's thread and the caller's.

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
        backend: WorkerBackend | None = None,
        dry_run: bool = False,
    ) -> None:
        occupy_standard_descriptors()
        self.settings = settings
        self.listener: Listener = ignore
        self._inspector = LoraInspector(may_download=not dry_run)
        (self._editing, self._scoring), self._server = with_or_without_server(
            "never" if backend is not None else server_of(settings),
            device_ids if device_ids is not None else settings.device_ids,
            lambda served: self._choose_roles(device_ids, config_folder, served),
        )
        self._session = Session(
            output_folder,
            data,
            overwrite,
            retry_quarantined,
            with_tables=False,
            looks_only=dry_run,
        )
        self._planner = self._session.planner(self.editor.loras)  # the folder is ours from here on
        self._retry_unparsed = retry_unparsed
        self._given_backend = backend
        self._engine: TaskEngine | None = None
        self._jobs: dict[Role, Job] = {}
        self._ended: queue.SimpleQueue[tuple[Role, Result]] = queue.SimpleQueue()
        self._edits: dict[int, Result] = {}
        self._scores: dict[int, Result] = {}
        self._pairs: list[Pair] = []
        self._edit_contents: dict[str, Contents] = {}  # by the key of the edit's output
        self._stopping = False
        self._bound: Stages = "sequential"  # what the stages of this run may be

    # -- what it is ----------------------------------------------------------

    @property
    def root(self) -> OutputRoot:
        """The output folder."""
        return self._session.root

    @property
    def devices(self) -> list[Device]:
        """The editors' devices."""
        return self._editing.devices

    @property
    def judge_devices(self) -> list[Device]:
        """The judges' devices."""
        return self._scoring.devices

    @property
    def editor(self) -> ModelChoice:
        """The model that edits, and how it is loaded."""
        return self._editing.model

    @property
    def judge_model(self) -> ModelChoice:
        """The model that scores, and how it is loaded."""
        return self._scoring.model

    @property
    def judge(self) -> Judge:
        """How edits are scored."""
        assert self._scoring.judge is not None
        return self._scoring.judge

    @property
    def judge_name(self) -> str:
        """What the folder of this judge's verdicts is called."""
        return self.judge.name(self.judge_model.identity)

    def __enter__(self) -> "EditBenchmark":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs and close the ledger."""
        if self._engine is not None:
            self._engine.stop(at_once=True)
        self._session.close()
        if self._workplace is not None:
            self._workplace.close()

    def _choose_roles(
        self,
        device_ids: list[int] | None,
        config_folder: Path | None,
        served: "ServedModels | None",
    ) -> tuple[RoleModel, RoleModel]:
        self._workplace = None if served is not None else workplace_of(self.settings, device_ids)
        return choose_roles(
            self.settings,
            device_ids,
            config_folder,
            self._lora_folders(),
            self._inspector,
            served,
            self._workplace,
        )

    def _backend(self) -> WorkerBackend:
        if self._given_backend is not None:
            return self._given_backend
        assert self._workplace is not None
        return self._workplace.backend()

    # -- planning ------------------------------------------------------------

    def prepare(self, pair_set: PairSet) -> Plan:
        """Check every pair and compare with what earlier runs left; the plan is of the edits.

        Raises:
            InputError: what they left is of other data, or a LoRA of the settings is not there.
        """
        self._pairs = pair_set.pairs
        known, admitted = self._admit_edits()
        self._edit_contents = {
            item.output.key: item.contents for item in admitted if isinstance(item, Admitted)
        }
        named = [_named(item, self._pairs) for item in admitted]
        self._plan: Plan = self._session.begin(self._planner, named, known)
        self._edits = {r.position: r for r in self._plan.settled}
        self._planned_scores = Scores(
            self._scoring,
            self._session,
            self._planner,
            self._pairs,
            self.settings.seed,
            self._retry_unparsed,
        )
        self._planned_scores.look_at(self.finished_edits(), bool(self._plan.tasks))
        self._score_summary = self._planned_scores.summary(self._plan.tasks, self._plan)
        return self._plan

    def plan(self, pair_set: PairSet) -> RunPlan:
        """What a run would do, where this was made with `dry_run`; nothing is touched.

        Raises:
            InputError: as `prepare` raises it.
        """
        self._pairs = pair_set.pairs
        with quiet():
            edits = self._look_at_edits()
        standings = self._session.standings(self._planner, edits)
        with quiet():
            plan = self.prepare(pair_set)
        return plan_benchmark(
            standings,
            [plan.summary, self._score_summary],
            [self._editing, self._scoring],
            self.settings,
            self._session,
            None if self._server is None else self._server.name,
        )

    def _look_at_edits(self) -> list[Item]:
        _, admitted = self._admit_edits()
        return [_named(item, self._pairs) for item in admitted]

    def _admit_edits(self) -> tuple[dict[str, Any], list[Item]]:
        loras = LoraFinder(self._lora_folders(), self._inspector)
        _check_default_loras(self.settings.editor.layers(*self.editor.names), loras)
        admission = Admission(
            EditKind(self._editing.layers, loras),
            self._editing.memory.identity,
            self.editor.dtype,
            self.root,
            default_name=str,  # never needed: every pair names its output
            first_seed=self.settings.seed,
            picture_quality=self.settings.workers.picture_quality,
        )
        suffix = self.settings.workers.picture_suffix
        inputs = [_edit_input(pair, self.settings.seed, suffix) for pair in self._pairs]
        admitted = [admission.admit(i, given) for i, given in enumerate(inputs)]
        known = self._planner.known(admitted)
        counting = {} if self._session.overwrite else known
        return known, self._editing.settle(admitted, counting)

    def _lora_folders(self) -> list[Path]:
        """Folders in which relative paths of LoRAs are looked up."""
        return [Path.cwd(), user_path(self.settings.lora_dir, "lora_dir")]

    def _tell_plan(self) -> None:
        """Say what is about to be done, where there is anything to do."""
        if self._plan.tasks:
            tell_plan(self._plan.summary, "pairs", WHY_MOVED, "Plan for edits")
        if _has_work(self._score_summary):
            tell_plan(self._score_summary, "pairs", WHY_MOVED, "Plan for scores")

    # -- running -------------------------------------------------------------

    def run(self) -> list[PairResult]:
        """Edit and score; one record per pair, in input order."""
        with self._session.run():
            return self._run()

    def _run(self) -> list[PairResult]:
        for result in self._edits.values():
            if not result.success:
                logger.error(f"{result.task_id}: {result.status}: {result.error}")
                self.listener(TaskSpared())
            self.tracker.settle(result, "edit")
            self.listener(TaskEnded(result, shape=TaskShape("edit")))
        there = self.finished_edits()
        if there and not self._plan.tasks:  # else the plan says it
            logger.info(f"{len(there)} of {len(self._pairs)} edits are there already.")
        self._tell_plan()
        to_score = [item for edit in there if (item := self._score(edit)) is not None]
        if self._plan.tasks or to_score:
            self._work(to_score)
        if self._plan.replaced is not None:
            self._plan.replaced.write_tables()
        self._session.end(self._plan)
        return self.results()

    def _work(self, to_score: Sequence[Admitted]) -> None:
        """Make edits, and score each of them as soon as it is there."""
        edits = self._plan.tasks
        again = sum(getattr(item.task, "more_asks", 0) > 0 for item in to_score)
        if again:
            logger.info(f"{again} verdicts without a score are asked for again.")
        roles = [self._editing] * bool(edits) + [self._scoring]
        engine = self._new_engine(roles)
        editing = self._submit("edit", edits, sealed=True)
        scoring = self._submit("score", to_score, sealed=not edits)
        unfinished = len(edits)
        self._expect(engine, scoring, unfinished)
        engine.start()  # now it knows of both when it shares the devices out
        while not (editing.finished and scoring.finished and self._ended.empty()):
            found = self._next_ended()
            if found is None or found[0] == "score":
                continue
            unfinished -= 1
            item = self._score(found[1]) if found[1].success else None
            if item is not None:
                self.tracker.add([shape_of(item)])
                engine.extend(scoring, [item])
            self._expect(engine, scoring, unfinished)
            if unfinished == 0:
                engine.seal(scoring)
        engine.stop(at_once=self._stopping)
        self._tell_waits(engine)

    def _expect(self, engine: TaskEngine, scoring: Job, edits: int) -> None:
        """Say how many edits may still be scored."""
        engine.expect(scoring, "score", edits)
        self.tracker.expect("score", edits)

    def _new_engine(self, roles: Sequence[RoleModel]) -> TaskEngine:
        for role in roles:
            role.ensure()  # as where a result was removed after the planning
            logger.info(role.reason)
            tracker = self.tracker
            tracker.serves(role.role, role.model.shown)
            tracker.has_workers(
                role.devices, self._server.name if self._server is not None else None
            )
        settings = self.settings
        self._bound = self._stages()
        if self._server is not None:
            self._bound = "auto"  # the daemon's workers are others', too
            return self._new_remote_engine(self._server)
        in_step = settings.enable_batch_sync
        devices = {d.label: d for role in roles for d in role.devices}
        from core.engine.engine import Engine  # who has a daemon needs nothing of it

        engine = Engine(
            list(devices.values()),
            [
                self._editing.served(in_step),
                self._scoring.served(in_step, after="edit"),
            ],
            self._backend(),
            settings.supervision,
            settings.scheduling,
            self._session.hearing(self._tell),
            stages=self._bound,
            release_patience=settings.vram_release_timeout,
        )
        self._engine = engine
        engine.fetch([role.role for role in roles])
        return engine

    def _new_remote_engine(self, server: Server) -> TaskEngine:
        """A daemon's workers, which change their models as its tasks ask for it."""
        from core.remote.remote_engine import RemoteEngine

        devices = {d.label: d for d in (*self.devices, *self.judge_devices)}
        rules, timeout = self.settings.supervision, self.settings.server_timeout
        listener = self._session.hearing(self._tell)
        self._engine = RemoteEngine(server, list(devices.values()), rules, timeout, listener)
        return self._engine

    def _stages(self) -> Stages:
        """The setting, or what is left of it on these devices."""
        stages = self.settings.stages
        if stages == "overlapped" and len(self.devices) == 1:
            logger.info("stages: one worker cannot be shared out; editing comes first.")
        if len(self.devices) == 1 or self.devices != self.judge_devices:
            return "sequential"
        return stages

    def _submit(self, role: Role, tasks: Sequence[Admitted], sealed: bool) -> Job:
        assert self._engine is not None
        job = self._jobs[role] = self._session.submit(
            self._engine,
            self._plan,
            tasks,
            owner="benchmark",
            listener=self._told(role),
            sealed=sealed,
            ends_batch=False,
        )
        if self._stopping:  # asked for before there was a job
            job.interrupt()
        return job

    def _score(self, edit: Result) -> Admitted | None:
        """What is to be done to score an edit; None if its score is there, or will not be made.

        After an interrupt only edits that have a verdict are looked at: it may still be theirs.
        """
        if self._stopping and not self._planned_scores.has_verdict(edit.position):
            return None
        item = self._planned_scores.of(self._plan, edit, ask_again=not self._stopping)
        if isinstance(item, Admitted):
            return None if self._stopping else item
        if not item.success:
            logger.error(f"{item.task_id}: {item.status}: {item.error}")
        self._scores[item.position] = item
        self.tracker.settle(item, "score")
        self.listener(TaskEnded(item, shape=TaskShape("score")))
        return None

    def _next_ended(self) -> tuple[Role, Result] | None:
        """The next result, noted; None after a moment without."""
        try:
            role, result = self._ended.get(timeout=WAIT_SLICE)
        except queue.Empty:
            return None
        if role == "edit":
            self._edits[result.position] = result
        elif result.status != "interrupted" or result.attempts or self._began_to_score:
            self._scores[result.position] = result
        return role, result

    @property
    def _began_to_score(self) -> bool:
        """Whether scoring has begun as a stage of its own, or goes on beside the editing."""
        return self._bound != "sequential" or self._jobs["edit"].finished

    def _told(self, role: Role) -> Callable[[Event], None]:
        def told(event: Event) -> None:
            if isinstance(event, TaskEnded):
                if role == "edit" and not event.result.success:
                    self._tell(TaskSpared())
                self._tell(event)
                self._ended.put((role, event.result))
            else:
                self._tell(event)

        return told

    def _tell(self, event: Event) -> None:
        """Call the listener of this moment."""
        tell(self.listener, event)

    def _tell_waits(self, engine: TaskEngine) -> None:
        for waited, steps in engine.waits_in_step:
            logger.info(
                f"enable_batch_sync: workers waited {waited:.1f} s for each other in {steps} steps."
            )

    def status(self) -> RunStatus:
        """How the run stands: edits and scores, speed, time left, workers and failures."""
        return self.tracker.status()

    @property
    def tracker(self) -> RunTracker:
        """Knows how the run stands; for views that look often."""
        return self._session.tracker

    def stop_leasing(self) -> None:
        """Finish what runs; safe in a signal handler."""
        self._stopping = True
        for job in list(self._jobs.values()):
            job.interrupt()

    def abandon(self) -> None:
        """Close everything as interrupted at once; safe in a signal handler."""
        self._stopping = True
        for job in list(self._jobs.values()):
            job.interrupt(at_once=True)

    # -- what came of it -------------------------------------------------------

    def results(self) -> list[PairResult]:
        """One record per pair, in input order."""
        edits = self._plan.told([self._edits[i] for i in range(len(self._pairs))])
        return [
            PairResult(pair, edit, self._scores.get(i))
            for i, (pair, edit) in enumerate(zip(self._pairs, edits, strict=True))
        ]

    def finished_edits(self) -> list[Result]:
        """Edits that are there, of this run and of earlier ones."""
        return [r for _, r in sorted(self._edits.items()) if r.success]

    def edits_made(self) -> list[Edit]:
        """How each finished edit was made."""
        entries = self._session.ledger.entries_of(list(self._edit_contents)).values()
        done = [(entry, self._edit_contents[entry.key]) for entry in entries]
        return [
            Edit(entry.task, entry.used, contents.lora, contents.loras)
            for entry, contents in done
            if entry.state == "done"
        ]


def _has_work(summary: PlanSummary) -> bool:
    return summary.counts.total() > summary.counts["unchanged"]


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


def _named(item: Item, pairs: list[Pair]) -> Item:
    """A rejected pair keeps its name."""
    if isinstance(item, Admitted):
        return item
    return replace(item, task_id=pairs[item.position].name)
