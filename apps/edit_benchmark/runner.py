"""One benchmark run: pairs to edits to scores."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from apps.edit_benchmark.best_of import best_of
from apps.edit_benchmark.chosen_pairs import RecordedPairs
from apps.edit_benchmark.data_set import MAPPED, form_of
from apps.edit_benchmark.drift_meter import DriftMeter
from apps.edit_benchmark.drifts import Measured
from apps.edit_benchmark.editing import Edit
from apps.edit_benchmark.edits import Edits, lora_folders
from apps.edit_benchmark.engine_choice import EngineChoice
from apps.edit_benchmark.execution import Execution
from apps.edit_benchmark.judge_files import missing_files
from apps.edit_benchmark.output_size import sizes_judged
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pair_result import AttemptResult, PairResult
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.planned import plan_benchmark
from apps.edit_benchmark.recognised import judged_with, read_as
from apps.edit_benchmark.roles import choose_roles, workplace_of
from apps.edit_benchmark.scores import Scores
from apps.edit_benchmark.settings import BenchmarkSettings
from apps.record_filter import Condition
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.dry_run.planner import quiet
from core.dry_run.run_plan import RunPlan
from core.engine.backend import WorkerBackend
from core.engine_choice import Workplace, server_of
from core.events import Event, Listener, TaskEnded, ignore, tell
from core.intake.plan_summary import PlanSummary
from core.intake.planning import Plan, tell_plan
from core.judge import Judge
from core.remote.choice import with_or_without_server
from core.session import Session
from core.status.run_status import RunStatus
from core.status.tracker import RunTracker
from core.store.ledger_copy import refuse_in_use
from core.store.outputs import OutputRoot
from core.streams import occupy_standard_descriptors
from core.tasks import Result

if TYPE_CHECKING:
    from core.remote.served_models import ServedModels

WHY_MOVED = "Pairs stand at other places in the data than before, and seeds go by the place."


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
        score_only: a folder with the edits, whoever made them: they are only scored, and no editor
            is loaded.
        num_gpus: how many GPUs; all by default. Without CUDA, CPU workers.

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
        score_only: Path | None = None,
        num_gpus: int | None = None,
    ) -> None:
        occupy_standard_descriptors()
        if data is not None:
            settings = settings.for_data_set(MAPPED if settings.fields else form_of(data))
        self.settings = settings
        self.listener: Listener = ignore
        if settings.engine != "local" and not dry_run:
            refuse_in_use(output_folder)  # before a cluster is waited for, perhaps in vain
        inspector = LoraInspector(may_download=not dry_run)
        (self._editing, self._scoring), self._server = with_or_without_server(
            "never" if backend is not None else server_of(settings),
            device_ids if device_ids is not None else settings.device_ids,
            lambda served: choose_roles(
                settings,
                self._workplace_for(device_ids, num_gpus, served),
                config_folder,
                lora_folders(settings),
                inspector,
                served,
                score_only is not None,
            ),
        )
        self._session = Session(
            output_folder,
            data,
            overwrite,
            retry_quarantined,
            with_tables=False,
            looks_only=dry_run,
        )
        model_loras = self._editing.model.loras if self._editing is not None else ()
        self._planner = self._session.planner(model_loras)  # the folder is ours from here on
        self._retry_unparsed = retry_unparsed
        self._planned_edits = Edits(
            self._editing, self._session, self._planner, settings, inspector, score_only
        )
        self._roles = [r for r in (self._editing, self._scoring) if r is not None]
        given = (lambda: backend) if backend is not None else None
        self._loads_here = given is None and self._server is None and settings.engine == "local"
        if given is None and self._workplace is not None:
            given = self._workplace.backend
        choice = EngineChoice(settings, self._roles, self._server, given)
        self._execution = Execution(choice, self._session, self._tell)
        self._drifts = DriftMeter(self.root.folder)
        self._pairs: list[Pair] = []

    # -- what it is ----------------------------------------------------------

    @property
    def root(self) -> OutputRoot:
        """The output folder."""
        return self._session.root

    @property
    def devices(self) -> list[Device]:
        """The editors' devices; none where edits are only scored."""
        return self._editing.devices if self._editing is not None else []

    @property
    def judge_devices(self) -> list[Device]:
        """The judges' devices."""
        return self._scoring.devices

    @property
    def editor(self) -> ModelChoice | None:
        """The model that edits, and how it is loaded; None where edits are only scored."""
        return self._editing.model if self._editing is not None else None

    @property
    def editor_identity(self) -> str:
        """The model that edits, or where edits that are there already are from."""
        origin = self._planned_edits.origin
        if origin is None and self._editing is not None:
            return self._editing.model.identity
        return origin or "none"

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
    def output_size(self) -> str:
        """The size in which edits are judged: model, source, or both."""
        return sizes_judged(self._pairs, self.settings.output_size)

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
        self._execution.close()
        self._drifts.finish()
        self._session.close()
        if self._workplace is not None:
            self._workplace.close()

    def _workplace_for(
        self, device_ids: list[int] | None, num_gpus: int | None, served: "ServedModels | None"
    ) -> Workplace | None:
        self._workplace = None
        if served is None:
            self._workplace = workplace_of(self.settings, device_ids, num_gpus)
        return self._workplace

    # -- planning ------------------------------------------------------------

    def chosen(
        self, pairs: PairSet, only: Collection[str], conditions: Sequence[Condition]
    ) -> PairSet:
        """Pairs by their ids, or by what the folder has on record of them; see `RecordedPairs`.

        Raises:
            InputError: an id is no pair's.
        """
        settings = self.settings
        suffix, edits = settings.workers.picture_suffix, settings.edits_per_pair
        recorded = RecordedPairs(self._session.entries(), self.judge_name, suffix, edits)
        return PairSet(pairs.name, recorded.chosen(pairs.pairs, only, conditions))

    def prepare(self, pair_set: PairSet) -> Plan:
        """Check every pair and compare with what earlier runs left; the plan is of the edits.

        Raises:
            InputError: what they left is of other data, or a LoRA of the settings is not there.
        """
        self._pairs = pair_set.pairs
        self._plan: Plan = self._planned_edits.begin(self._pairs)
        self._execution.edits = {r.position: r for r in self._plan.settled}
        self._planned_scores = Scores(
            self._scoring,
            self._session,
            self._planner,
            self._planned_edits.attempts,
            self.settings.seed,
            self._retry_unparsed,
            self.settings.output_size,
        )
        self._planned_scores.look_at(self.finished_edits(), bool(self._plan.tasks))
        self._score_summary = self._planned_scores.summary(
            self._plan.tasks, self._plan, self._planned_edits.waiting
        )
        return self._plan

    def plan(self, pair_set: PairSet) -> RunPlan:
        """What a run would do, where this was made with `dry_run`; nothing is touched.

        Raises:
            InputError: as `prepare` raises it.
        """
        self._pairs = pair_set.pairs
        with quiet():
            standings = self._planned_edits.standings(self._pairs)
            plan = self.prepare(pair_set)
        plan_of_run = plan_benchmark(
            standings,
            [plan.summary, self._score_summary],
            self._roles,
            self.settings,
            self._session,
            None if self._server is None else self._server.name,
            self._planned_scores.unjudged(),
        )
        problems = list(plan_of_run.problems)
        told = any(model.kind == "score" and model.problems for model in plan_of_run.models)
        if not told and (missing := self._missing_files()) is not None:
            problems.append(missing)
        notes = [*self._recognised(), *plan_of_run.notes]
        return replace(plan_of_run, notes=notes, problems=problems)

    def _missing_files(self) -> str | None:
        """Why the judge's model cannot be had; None where it can, or is not needed here."""
        if not self._loads_here or not _has_work(self._score_summary):
            return None
        return missing_files(self.judge_model)

    def _recognised(self) -> list[str]:
        return [read_as(self._pairs), judged_with(self.judge)] if self._pairs else []

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
        for line in self._recognised():
            logger.info(line)
        there = self.finished_edits()
        if there and not self._plan.tasks:  # else the plan says it
            every = len(self._planned_edits.attempts)
            logger.info(f"{len(there)} of {every} edits are there already.")
        self._tell_plan()
        unjudged = self._planned_scores.unjudged()
        if unjudged is not None:
            logger.warning(unjudged)
        self._execution.run(self._plan, self._planned_edits, self._planned_scores)
        if self._plan.replaced is not None:
            self._plan.replaced.write_tables()
        self._session.end(self._plan)
        return self.results()

    def _tell(self, event: Event) -> None:
        """Call the listener of this moment."""
        if isinstance(event, TaskEnded) and event.shape.kind == "edit":
            self._measure(event.result)
        tell(self.listener, event)

    def _measure(self, edit: Result) -> None:
        """Have the drift of an edit measured beside the run; of several edits the one that is
        chosen will be, at the end."""
        sources = self._planned_edits.attempts[edit.position].pair.source_images
        if edit.output_path and sources and self.settings.edits_per_pair == 1:
            self._drifts.take(Path(edit.output_path), sources[0])

    def status(self) -> RunStatus:
        """How the run stands: edits and scores, speed, time left, workers and failures."""
        return self.tracker.status()

    @property
    def tracker(self) -> RunTracker:
        """Knows how the run stands; for views that look often."""
        return self._session.tracker

    def stop_leasing(self) -> None:
        """Finish what runs; safe in a signal handler."""
        self._execution.interrupt()

    def abandon(self) -> None:
        """Close everything as interrupted at once; safe in a signal handler."""
        self._execution.interrupt(at_once=True)

    # -- what came of it -------------------------------------------------------

    def results(self) -> list[PairResult]:
        """What became of each pair, in input order; of several edits the judge's best counts."""
        edits, scores = self._execution.edits, self._execution.scores
        attempts = self._planned_edits.attempts
        told = self._plan.told([edits[i] for i in range(len(attempts))])
        of_pair: list[list[AttemptResult]] = [[] for _ in self._pairs]
        pairs = list(self._pairs)
        for position, attempt in enumerate(attempts):
            one = AttemptResult(attempt.number, told[position], scores.get(position))
            of_pair[attempt.of].append(one)
        for attempt in reversed(attempts):
            pairs[attempt.of] = attempt.pair
        results = []
        for pair, found in zip(pairs, of_pair, strict=True):
            chosen = best_of(found) if len(found) > 1 else found[0]
            several = tuple(found) if len(found) > 1 else ()
            results.append(PairResult(pair, chosen.edit, chosen.score, several))
        return results

    def finished_edits(self) -> list[Result]:
        """Edits that are there, of this run and of earlier ones."""
        return [r for _, r in sorted(self._execution.edits.items()) if r.success]

    def drifts(self) -> dict[str, Measured]:
        """Drifts of edits as far as they were measured while the run went on."""
        return self._drifts.finish()

    def edits_made(self) -> list[Edit]:
        """How each finished edit was made."""
        return self._planned_edits.made()


def _has_work(summary: PlanSummary) -> bool:
    return summary.counts.total() > summary.counts["unchanged"]
