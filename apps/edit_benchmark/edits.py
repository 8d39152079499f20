"""The edits that a benchmark asks for: one for each pair, compared with what earlier runs left."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apps.edit_benchmark.editing import Edit
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.settings import BenchmarkSettings
from core.checkpoints.lora_files import LoraInspector
from core.errors import InputError
from core.intake.admission import Admission, Admitted, Item
from core.intake.kinds.edit import EditKind
from core.intake.planning import Plan, Planner
from core.intake.task_kinds import Contents, LoraFinder
from core.paths import user_path
from core.role_model import RoleModel
from core.seeds import seed_of_task
from core.session import Session
from core.settings import EditDefaults
from core.tasks import EditTask


class Edits:
    """Plans the edit of each pair.

    Args:
        inspector: reads the LoRAs of the settings.
    """

    def __init__(
        self,
        role: RoleModel,
        session: Session,
        planner: Planner,
        settings: BenchmarkSettings,
        inspector: LoraInspector,
    ) -> None:
        self._role = role
        self._session = session
        self._planner = planner
        self._settings = settings
        self._inspector = inspector
        self._contents: dict[str, Contents] = {}  # by the key of the edit's output

    def look_at(self, pairs: Sequence[Pair]) -> tuple[dict[str, Any], list[Item]]:
        """Check every pair; also what earlier runs left of their edits, by the outputs' keys.

        Raises:
            InputError: a LoRA of the settings is not there.
        """
        settings = self._settings
        loras = LoraFinder(lora_folders(settings), self._inspector)
        model = self._role.model
        _check_default_loras(settings.editor.layers(*model.names), loras)
        admission = Admission(
            EditKind(self._role.layers, loras),
            self._role.memory.identity,
            model.dtype,
            self._session.root,
            default_name=str,  # never needed: every pair names its output
            first_seed=settings.seed,
            picture_quality=settings.workers.picture_quality,
        )
        suffix = settings.workers.picture_suffix
        inputs = [_edit_input(pair, settings.seed, suffix) for pair in pairs]
        admitted = [admission.admit(i, given) for i, given in enumerate(inputs)]
        known = self._planner.known(admitted)
        counting = {} if self._session.overwrite else known
        settled = self._role.settle(admitted, counting)
        return known, [_named(item, pairs) for item in settled]

    def begin(self, pairs: Sequence[Pair]) -> Plan:
        """Plan the edits of all pairs.

        Raises:
            InputError: what earlier runs left is of other data, or a LoRA of the settings is not
                there.
        """
        known, items = self.look_at(pairs)
        self._contents = {
            item.output.key: item.contents for item in items if isinstance(item, Admitted)
        }
        return self._session.begin(self._planner, items, known)

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


def _named(item: Item, pairs: Sequence[Pair]) -> Item:
    """A rejected pair keeps its name."""
    if isinstance(item, Admitted):
        return item
    return replace(item, task_id=pairs[item.position].name)
