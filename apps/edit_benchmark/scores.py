"""The scores that a benchmark asks for: one for each finished edit, planned as edits finish."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from loguru import logger

from apps.edit_benchmark.attempt import Attempt
from apps.edit_benchmark.output_size import OutputSize, size_judged
from core.intake.admission import Admission, Admitted, Item, Rejected
from core.intake.differences import Change
from core.intake.kinds.score import ScoreKind
from core.intake.plan_summary import PlanSummary, Standing
from core.intake.planning import Plan, Planner
from core.judge import Judge
from core.judge_rows import fields_named, row_of
from core.paths import as_text, on_disk
from core.role_model import RoleModel
from core.session import Session
from core.store.ledger_entry import entry_for
from core.store.provenance import read_provenance
from core.tasks import Result, ScoreTask


class Scores:
    """Plans the score of each edit.

    Args:
        attempts: all edits of the run, by position.
        first_seed: from the settings.
        retry_unparsed: ask the judge once more than before where its verdict has no score.
        output_size: in which edits are judged.
    """

    def __init__(
        self,
        role: RoleModel,
        session: Session,
        planner: Planner,
        attempts: Sequence[Attempt],
        first_seed: int,
        retry_unparsed: bool,
        output_size: OutputSize = "auto",
    ) -> None:
        assert role.judge is not None
        self.judge: Judge = role.judge
        self._role = role
        self._session = session
        self._planner = planner
        self._attempts = attempts
        self._first_seed = first_seed
        self._output_size = output_size
        self._retry_unparsed = retry_unparsed and self.judge.type.varies
        if retry_unparsed and not self._retry_unparsed:
            kind = self.judge.settings.type
            logger.warning(f"--retry-unparsed: a judge of type {kind} says the same each time.")
        self._name = self.judge.name(role.model.identity)
        self._admitted: dict[int, Item] = {}  # of edits that are there

    def look_at(self, edits: Sequence[Result], more_to_come: bool) -> None:
        """Check the scores of edits that are there, and decide how the judges load their model.

        Each edit is hashed once: it is looked at for the plan, and scored after it.
        """
        counted = self._session.tracker.headway.over("checking scores of", edits, len(edits))
        items = {edit.position: self._admit(edit) for edit in counted}
        known = {} if self._session.overwrite else self._planner.known(list(items.values()))
        settled = self._role.settle(list(items.values()), known)
        self._admitted = dict(zip(items, settled, strict=True))
        if more_to_come:
            self._role.ensure()
        self.__dict__.pop("_admission", None)  # the memory mode may be another one now

    def summary(
        self, edits_to_make: Sequence[Admitted], plan: Plan, waiting: int = 0
    ) -> PlanSummary:
        """How the verdicts stand: those on edits that stay, and those on edits to be made.

        Args:
            waiting: edits more that will be made when the turn before them is done.
        """
        items = list(self._admitted.values())
        standings: list[tuple[Standing, list[Change]]] = []
        for item, (standing, changes) in zip(items, self._planner.look(items), strict=True):
            if standing == "unchanged" and isinstance(item, Admitted) and self._lacks_score(item):
                standing, changes = "changed", [Change("unparsed, asked again")]
            standings.append((standing, changes))
        for edit in edits_to_make:
            if not self.has_verdict(edit.position):
                standings.append(("new", []))
            elif plan.replaced is None:
                standings.append(("again", []))
            else:
                standings.append(("changed", [Change("edited picture")]))
        standings += [("new", [])] * waiting
        return PlanSummary.of(standings)

    def has_verdict(self, position: int) -> bool:
        """A verdict lies where that of a pair would."""
        return (self._session.root.folder / on_disk(self._place_of(position))).exists()

    def of(self, plan: Plan, edit: Result, ask_again: bool = True) -> Admitted | Result:
        """The score of a finished edit: what is to be done for it, or its result if it is there.

        Args:
            ask_again: where a verdict has no score, if the user wants that.
        """
        admitted = self._admitted.pop(edit.position, None) or self._admit(edit)
        [item] = self._planner.add(plan, [admitted])
        if isinstance(item, Result) and item.status == "skipped" and isinstance(admitted, Admitted):
            again = self._asked_again(plan, admitted) if ask_again else None
            return again or item
        return item

    @cached_property
    def _admission(self) -> Admission:
        return Admission(
            ScoreKind(),
            self._role.memory.identity,
            self.judge.settings.dtype,
            self._session.root,
            default_name=str,  # never needed: every verdict has its place
            first_seed=self._first_seed,
        )

    def unjudged(self) -> str | None:
        """Why some pairs will have no score, however they are edited; None if all can be judged."""
        usable = {a.pair.name: a for a in self._attempts if a.pair.problem is None}
        looked_at = {n: self._problem_of(self._task(a, "-")) for n, a in usable.items()}
        problems = {name: problem for name, problem in looked_at.items() if problem is not None}
        if not problems:
            return None
        name, first = next(iter(problems.items()))
        return (
            f"{len(problems)} of {len(usable)} pairs cannot be judged; the first, {name}: {first}"
        )

    def _problem_of(self, task: ScoreTask) -> str | None:
        return self.judge.prompts.problem_of(row_of(task))

    def _admit(self, edit: Result) -> Item:
        attempt = self._attempts[edit.position]
        task = replace(
            self._task(attempt, as_text(str(edit.output_path))),
            seed=attempt.seed(self._first_seed),
            output_path=self._place_of(edit.position),
        )
        problem = self._problem_of(task)
        if problem is not None:
            return Rejected(edit.position, str(task.task_id), problem)
        return self._admission.admit(edit.position, task)

    def _task(self, attempt: Attempt, edited: str) -> ScoreTask:
        """The score of an attempt's edit, with what the judge's questions name of its pair."""
        pair, prompts = attempt.pair, self.judge.prompts
        seen = prompts.pictures_seen
        given = {"category": pair.category, "language": pair.language, **pair.metadata}
        return ScoreTask(
            pair.instruction,
            pair.source_images,
            edited,
            target_images=pair.target_images if "target" in seen else (),
            reference_images=pair.reference_images if "references" in seen else (),
            mask=(pair.mask or None) if "mask" in seen else None,
            fields=fields_named(given, prompts.row_fields),
            at_source_size=size_judged(pair, self._output_size) == "source",
            task_id=f"score {attempt.name}",
            metadata={"category": pair.category},
        )

    def _asked_again(self, plan: Plan, scored: Admitted) -> Admitted | None:
        """Ask once more for a verdict without a score, if the user wants that."""
        if not self._lacks_score(scored):
            return None
        assert isinstance(scored.task, ScoreTask)
        verdict = read_provenance(scored.output.file)
        more = verdict["task"].get("more_asks", 0) + 1
        again = self._admission.admit(scored.position, replace(scored.task, more_asks=more))
        if not isinstance(again, Admitted):  # asked as often as a task can say
            return None
        self._session.ledger.set_state(entry_for(again, "pending"), plan.batch)
        return again

    def _lacks_score(self, scored: Admitted) -> bool:
        """Whether a verdict has no score and the user wants it asked for again."""
        if not self._retry_unparsed:
            return False
        try:
            used = read_provenance(scored.output.file).get("used")
        except ValueError:  # removed or damaged since it was looked at
            return False
        return isinstance(used, dict) and used.get("scores", ()) is None

    def _place_of(self, position: int) -> str:
        """Path of the judge's verdict, relative to the results' folder."""
        return self._attempts[position].verdict_place(self._name)
