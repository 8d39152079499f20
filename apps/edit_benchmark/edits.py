"""The edits that a benchmark asks for: one for each pair, compared with what earlier runs left."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apps.edit_benchmark.editing import Edit
from apps.edit_benchmark.given_edits import FolderOfEdits, GivenEdit, brought_edit, find_edits
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.settings import BenchmarkSettings
from core.checkpoints.lora_files import LoraInspector
from core.errors import InputError
from core.intake.admission import Admission, Admitted, Item, Rejected
from core.intake.kinds.edit import EditKind
from core.intake.planning import Plan, Planner
from core.intake.task_kinds import Contents, LoraFinder
from core.paths import as_text, user_path
from core.role_model import RoleModel
from core.seeds import seed_of_task
from core.session import Session
from core.settings import EditDefaults
from core.tasks import EditTask, Result


class Edits:
    """Plans the edit of each pair; what is there already is taken as it is.

    Args:
        role: what edits; None where every edit is in `folder`.
        inspector: reads the LoRAs of the settings.
        folder: has the edits, whoever made them.

    Attributes:
        given: edits that need no editor, by the positions of their pairs.
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
        self._pairs: Sequence[Pair] = ()
        self._contents: dict[str, Contents] = {}  # by the key of the edit's output
        self.given: dict[int, Result] = {}

    @property
    def origin(self) -> str | None:
        """Where the edits are from, if not one of them needs an editor."""
        if self._found is not None:
            return self._found.line
        if self.given and len(self.given) == len(self._pairs):
            return "edits of the data"
        return None

    def look_at(self, pairs: Sequence[Pair]) -> tuple[dict[str, Any], list[Item]]:
        """Check every pair whose edit is to be made, and refuse those whose edit is missing.

        Also what earlier runs left of these edits, by the outputs' keys.

        Raises:
            InputError: a LoRA of the settings is not there, or the folder has no edits of these
                pairs.
        """
        self._pairs = pairs
        if self._folder is not None:
            self._found = find_edits(self._folder, pairs)
        self.given = {}
        refused: dict[int, Item] = {}
        to_make: list[int] = []
        for position, pair in enumerate(pairs):
            edit = pair.problem or self._given(pair)
            if edit is None:
                to_make.append(position)
            elif isinstance(edit, InputError):
                refused[position] = Rejected(position, pair.name, str(edit))
            else:
                file = as_text(str(edit))
                self.given[position] = Result(position, pair.name, "skipped", file)
        known, items = self._look_at_these(to_make)
        every = {**refused, **{item.position: item for item in items}}
        return known, [item for _, item in sorted(every.items())]

    def _given(self, pair: Pair) -> GivenEdit | None:
        """The edit of a pair that needs no editor; why it is missing; None if it is to be made."""
        return brought_edit(pair) if self._found is None else self._found.find(pair)

    def _look_at_these(self, positions: Sequence[int]) -> tuple[dict[str, Any], list[Item]]:
        """Check pairs whose edits are to be made."""
        settings, role = self._settings, self._role
        if role is None or not positions:
            return {}, []
        loras = LoraFinder(lora_folders(settings), self._inspector)
        _check_default_loras(settings.editor.layers(*role.model.names), loras)
        admission = Admission(
            EditKind(role.layers, loras),
            role.memory.identity,
            role.model.dtype,
            self._session.root,
            default_name=str,  # never needed: every pair names its output
            first_seed=settings.seed,
            picture_quality=settings.workers.picture_quality,
        )
        pairs, suffix = self._pairs, settings.workers.picture_suffix
        admitted = [
            admission.admit(i, _edit_task(pairs[i], settings.seed, suffix)) for i in positions
        ]
        known = self._planner.known(admitted)
        settled = role.settle(admitted, {} if self._session.overwrite else known)
        return known, [_named(item, pairs) for item in settled]

    def begin(self, pairs: Sequence[Pair]) -> Plan:
        """Plan the edits of all pairs; those that are there come as settled results.

        Raises:
            InputError: as `look_at` raises it; or what earlier runs left is of other data.
        """
        known, items = self.look_at(pairs)
        self._contents = {
            item.output.key: item.contents for item in items if isinstance(item, Admitted)
        }
        plan = self._session.begin(self._planner, items, known)
        plan.settled += self.given.values()
        return plan

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


def _edit_task(pair: Pair, first_seed: int, suffix: str) -> EditTask:
    return EditTask(
        pair.instruction,
        pair.source_images,
        seed=seed_of_task(first_seed, pair.seed_offset),
        output_path=f"edits/{pair.name}{suffix}",
        task_id=pair.name,
        metadata={"category": pair.category, **pair.metadata},
    )


def _named(item: Item, pairs: Sequence[Pair]) -> Item:
    """A rejected pair keeps its name."""
    if isinstance(item, Admitted):
        return item
    return replace(item, task_id=pairs[item.position].name)
