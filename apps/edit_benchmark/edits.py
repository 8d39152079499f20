"""The edits that a benchmark asks for: one for each pair, compared with what earlier runs left."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from apps.edit_benchmark.attempt import Attempt, attempts_of
from apps.edit_benchmark.editing import Edit
from apps.edit_benchmark.given_edits import FolderOfEdits, GivenEdit, brought_edit, find_edits
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.settings import BenchmarkSettings
from apps.edit_benchmark.turns import Turns
from core.checkpoints.lora_files import LoraInspector
from core.dry_run.planner import Standings
from core.errors import InputError
from core.intake.admission import Admission, Admitted, Item, Rejected
from core.intake.kinds.edit import EditKind
from core.intake.plan_summary import PlanSummary
from core.intake.planning import Plan, Planner
from core.intake.task_kinds import Contents, LoraFinder
from core.paths import as_text, user_path
from core.role_model import RoleModel
from core.session import Session
from core.settings import EditDefaults
from core.tasks import EditTask, Result


class Edits:
    """Plans the edits of each pair; what is there already is taken as it is.

    Edits of later turns are planned when the edit that they start from is there.

    Args:
        role: what edits; None where every edit is in `folder`.
        inspector: reads the LoRAs of the settings.
        folder: has the edits, whoever made them.

    Attributes:
        attempts: all edits of the run, by their positions.
    """

    def __init__(
        self,
        role: RoleModel | None,
        session: Session,
        planner: Planner,
        settings: BenchmarkSettings,
        inspector: LoraInspector,
        folder: Path | None = None,
    ) -> None:
        self._role = role
        self._session = session
        self._planner = planner
        self._settings = settings
        self._inspector = inspector
        self._folder = folder
        self._found: FolderOfEdits | None = None
        self._loras: LoraFinder | None = None
        self._admissions: dict[str, Admission] = {}  # by the model's identity
        self._contents: dict[str, Contents] = {}  # by the key of the edit's output
        self.attempts: list[Attempt] = []

    @property
    def origin(self) -> str | None:
        """Where the edits are from, if not one of them needs an editor."""
        if self._found is not None:
            return self._found.line
        given = self.attempts and all(attempt.pair.edited_image for attempt in self.attempts)
        return "edits of the data" if given else None

    @property
    def waiting(self) -> int:
        """How many edits wait for the turn before them."""
        return self._turns.waiting

    # -- planning ------------------------------------------------------------

    def begin(self, pairs: Sequence[Pair]) -> Plan:
        """Plan the edits of all pairs; those that are there come as settled results.

        Raises:
            InputError: as `look_at` raises it; or what earlier runs left is of other data.
        """
        given, items = self._look_at(pairs)
        self._note(items)
        plan = self._session.begin(self._planner, items, self._planner.known(items))
        plan.settled += given
        for result in list(plan.settled):
            for one in self.after(plan, result, counted=True):
                if isinstance(one, Admitted):
                    plan.tasks.append(one)
                else:
                    plan.settled.append(one)
        later = PlanSummary.of([("new", [])] * self.waiting)
        plan.summary = replace(plan.summary, counts=plan.summary.counts + later.counts)
        return plan

    def standings(self, pairs: Sequence[Pair]) -> Standings:
        """How the edits stand to what lies in the folder; nothing is touched.

        Edits of later turns whose turn has not come are told as if they started from the first
        turn's picture.

        Raises:
            InputError: as `begin` raises it.
        """
        given, items = self._look_at(pairs)
        found = self._session.standings(self._planner, items)
        there = {result.position: str(result.output_path) for result in given}
        for one, standing, _ in found:
            if standing == "unchanged" and isinstance(one.item, Admitted):
                there[one.item.position] = one.item.output.path
        level = [*self._turns.first]
        while level:
            later = [
                (each, position) for position in level for each in self._turns.release(position)
            ]
            waves: list[Item] = []
            for position, before in later:
                source = there.get(before)
                sources = (source,) if source else self.attempts[before].pair.source_images
                item = self._start(position, sources)
                if isinstance(item, Result):
                    there[position] = str(item.output_path)
                else:
                    waves.append(item)
            more = self._session.standings(self._planner, waves) if waves else []
            for one, standing, _ in more:
                if standing == "unchanged" and isinstance(one.item, Admitted):
                    there[one.item.position] = one.item.output.path
            found += more
            level = [position for position, _ in later]
        return found

    def after(self, plan: Plan, edit: Result, counted: bool = False) -> list[Admitted | Result]:
        """What follows from the end of an edit: edits to be made of it, or their results.

        Without the edit, all later turns end as it did.

        Args:
            counted: what is found counts in the plan's summary.
        """
        found: list[Admitted | Result] = []
        ended = [edit]
        for before in ended:  # grows meanwhile
            for position in self._turns.release(before.position):
                one = self._follow(plan, position, before, counted)
                found.append(one)
                if isinstance(one, Result):
                    ended.append(one)
        return found

    def _follow(
        self, plan: Plan, position: int, before: Result, counted: bool
    ) -> Admitted | Result:
        name = self.attempts[position].name
        if before.status in ("interrupted", "timeout"):
            error = f"Not tried: {before.task_id}, whose edit it starts from, was not finished."
            return Result(position, name, "interrupted", None, error=error)
        if not before.success:
            error = f"{before.task_id}, whose edit it starts from, has no edit: {before.error}"
            item: Item | Result = Rejected(position, name, error)
        else:
            item = self._start(position, (as_text(str(before.output_path)),))
        if isinstance(item, Result):
            return item
        self._note([item])
        if counted:
            seen = PlanSummary.of(self._planner.look([item]))
            reasons = [*plan.summary.reasons, *seen.reasons]
            counts = plan.summary.counts + seen.counts
            plan.summary = replace(plan.summary, counts=counts, reasons=reasons)
        [one] = self._planner.add(plan, [item])
        return one

    # -- single edits ----------------------------------------------------------

    def _look_at(self, pairs: Sequence[Pair]) -> tuple[list[Result], list[Item]]:
        """The edits that are there, and all others that start from pictures of the data.

        Raises:
            InputError: a LoRA of the settings is not there, or the folder has no edits of these
                pairs.
        """
        if self._folder is not None:
            self._found = find_edits(self._folder, pairs)
        number = self._settings.edits_per_pair if self._folder is None else 1
        self.attempts = attempts_of(pairs, number)
        self._turns = Turns(self.attempts)
        self._admissions.clear()
        if self._role is not None:
            self._loras = LoraFinder(lora_folders(self._settings), self._inspector)
            layers = self._settings.editor.layers(*self._role.model.names)
            _check_default_loras(layers, self._loras)
        first = self._turns.first
        counted = self._session.tracker.headway.over("checking", first, len(first))
        every = [self._start(i, self.attempts[i].pair.source_images) for i in counted]
        every += [
            Rejected(i, self.attempts[i].name, text) for i, text in self._turns.problems.items()
        ]
        given = [one for one in every if isinstance(one, Result)]
        items: list[Item] = [one for one in every if not isinstance(one, Result)]
        items.sort(key=lambda item: item.position)
        if self._role is not None and any(isinstance(item, Admitted) for item in items):
            known = {} if self._session.overwrite else self._planner.known(items)
            items = self._role.settle(items, known)
        return given, items

    def _start(self, position: int, sources: tuple[str, ...]) -> Item | Result:
        """The edit of these pictures: what is to be made, or what is there."""
        attempt = self.attempts[position]
        if attempt.pair.source_images != sources:
            attempt = replace(attempt, pair=replace(attempt.pair, source_images=sources))
            self.attempts[position] = attempt
        pair = attempt.pair
        edit = pair.problem or self._given(pair)
        if isinstance(edit, Path):
            return Result(position, attempt.name, "skipped", as_text(str(edit)))
        if edit is not None:
            return Rejected(position, attempt.name, str(edit))
        assert self._role is not None  # without one every edit is given, or missing
        item = self._admission(self._role).admit(position, self._task(attempt))
        return item if isinstance(item, Admitted) else replace(item, task_id=attempt.name)

    def _given(self, pair: Pair) -> GivenEdit | None:
        """The edit of a pair that needs no editor; why it is missing; None if it is to be made."""
        return brought_edit(pair) if self._found is None else self._found.find(pair)

    def _task(self, attempt: Attempt) -> EditTask:
        pair = attempt.pair
        return EditTask(
            pair.instruction,
            pair.source_images,
            seed=attempt.seed(self._settings.seed),
            output_path=attempt.edit_place(self._settings.workers.picture_suffix),
            task_id=attempt.name,
            metadata={"category": pair.category, **pair.metadata},
        )

    def _admission(self, role: RoleModel) -> Admission:
        """As the model is loaded now: its memory mode is decided by the first edits."""
        identity = role.memory.identity
        if identity not in self._admissions:
            self._admissions[identity] = Admission(
                EditKind(role.layers, self._loras),
                identity,
                role.model.dtype,
                self._session.root,
                default_name=str,  # never needed: every edit has its place
                first_seed=self._settings.seed,
                picture_quality=self._settings.workers.picture_quality,
            )
        return self._admissions[identity]

    def _note(self, items: Sequence[Item]) -> None:
        self._contents |= {
            item.output.key: item.contents for item in items if isinstance(item, Admitted)
        }

    # -- what came of them -------------------------------------------------------

    def made(self) -> list[Edit]:
        """How each finished edit was made."""
        entries = self._session.ledger.entries_of(list(self._contents)).values()
        done = [(entry, self._contents[entry.key]) for entry in entries]
        return [
            Edit(entry.task, entry.used, contents.lora, contents.loras)
            for entry, contents in done
            if entry.state == "done"
        ]


def lora_folders(settings: BenchmarkSettings) -> list[Path]:
    """Folders in which relative paths of LoRAs are looked up."""
    return [Path.cwd(), user_path(settings.lora_dir, "lora_dir")]


def _check_default_loras(layers: Sequence[EditDefaults], loras: LoraFinder) -> None:
    """Raises InputError once for a LoRA of the settings that would fail every pair."""
    for layer in layers:
        try:
            loras.find(layer.lora_path)
        except InputError as error:
            raise InputError(f"editor.defaults.{error}") from None
