"""Turns the inputs of a batch, of any kinds, into tasks that the models of its roles can run."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from core.checkpoints.lora_files import LoraInspector
from core.errors import InputError, MultiGPUError
from core.intake.admission import Admission, Admitted, Item, Rejected, claimed_id
from core.intake.shapes import shapes_of
from core.intake.task_kinds import KINDS, Inputs, LoraFinder, TaskInput, kind_asked_for
from core.masked_editors import no_mask
from core.model_lora import ModelLora
from core.roles import Roles
from core.settings import Settings
from core.store.claims import BatchClaims
from core.store.ledger import Entry
from core.store.outputs import PICTURE_SUFFIXES, OutputPath, OutputRoot
from core.tasks import GenerateTask, Task
from core.worker_spec import Role

USUAL = GenerateTask  # what an input is that does not say its kind
UNUSABLE = "model"  # the cause of refusals that are no fault of the input


class BatchIntake:
    """Admits each input by its kind; the kinds share one folder and its outputs.

    A role whose model cannot be used fails its own tasks, and no others.

    Args:
        lora_folders: where relative LoRA paths are looked up.
        default_name: the output path of a task without one, from its file name.
        first_number: of such file names.
        kept_seed: the seed that an earlier run drew at random for an output, if one did.
        claims: on the batch's outputs.
    """

    def __init__(
        self,
        roles: Roles,
        settings: Settings,
        root: OutputRoot,
        lora_folders: Sequence[Path],
        inspector: LoraInspector,
        default_name: Callable[[str], str],
        first_number: int,
        kept_seed: Callable[[OutputPath], int | None] | None,
        claims: BatchClaims,
    ) -> None:
        self._roles = roles
        self._settings = settings
        self._root = root
        self._loras = LoraFinder(lora_folders, inspector)
        self._default_name = default_name
        self._first_number = first_number
        self._kept_seed = kept_seed
        self._claims = claims
        self._admissions: dict[type[Task], Admission] = {}
        self._unusable: dict[Role, str] = {}  # why, by role

    def admit(self, position: int, given: TaskInput) -> Item:
        """Check one input; `position` is its place in the batch."""
        try:
            kind, asked = kind_asked_for(given, USUAL)
        except InputError as error:
            return Rejected(position, claimed_id(given, position), str(error))
        try:
            admission = self._admissions.get(kind.task)
            if admission is None:
                admission = self._admissions[kind.task] = self._admission_of(kind.task)
        except MultiGPUError as error:
            name = claimed_id(given, position)
            return Rejected(position, name, str(error), cause=UNUSABLE)
        return self._within_abilities(admission.admit(position, asked))

    def _within_abilities(self, item: Item) -> Item:
        """The item, or its refusal where its model cannot do what it asks for."""
        if not isinstance(item, Admitted) or getattr(item.task, "mask", None) is None:
            return item
        role = self._roles[item.role]
        if role.takes_masks:
            return item
        return Rejected(item.position, item.task_id, f"mask: {no_mask(role.model.shown)}")

    def _admission_of(self, task: type[Task]) -> Admission:
        if task.role in self._unusable:
            raise InputError(self._unusable[task.role])
        try:
            role = self._roles[task.role]
        except MultiGPUError as error:
            self._unusable[task.role] = str(error)
            raise
        kind = KINDS[task.__name__]
        suffix = kind.suffixes[0]
        if kind.suffixes == PICTURE_SUFFIXES:
            suffix = self._settings.workers.picture_suffix
        return Admission(
            kind(role.layers, self._loras),
            role.memory.identity,
            self._settings.dtype if task is USUAL else role.dtype,
            self._root,
            self._namer(kind.stem or task.role, suffix),
            self._settings.seed,
            self._kept_seed,
            self._claims,
            self._settings.workers.picture_quality,
        )

    def _namer(self, stem: str, suffix: str) -> Callable[[int], str]:
        """The output path of a task that names none, from its position."""
        first = self._first_number
        named = self._default_name  # not by way of this object: the ledger would wait for gc
        return lambda position: named(f"{stem}_{first + position:04d}{suffix}")

    @property
    def model_loras(self) -> list[ModelLora]:
        """LoRAs of all models that the batch needs, and of the one that draws."""
        used = dict.fromkeys([USUAL.role, *(task.role for task in self._admissions)])
        return [lora for role in used for lora in self._roles[role].model.loras]

    def only_draws(self, inputs: Inputs) -> bool:
        """Whether no input asks for another model than the one that draws.

        Inputs that are made as they are read are those of a reader that knows nothing else.
        """
        if not isinstance(inputs, Sequence):
            return True
        try:
            return all(kind_asked_for(given, USUAL)[0].task is USUAL for given in inputs)
        except MultiGPUError:
            return False

    def outputs(self, inputs: Inputs) -> list[str] | None:
        """Where the pictures of inputs that only draw are to lie, relative to the folder.

        None where only a closer look at each would tell, or where they are made as they are read.
        """
        if not isinstance(inputs, Sequence):
            return None
        named = self._namer(USUAL.role, self._settings.workers.picture_suffix)
        found: list[str] = []
        for position, given in enumerate(inputs):
            if isinstance(given, InputError):
                continue
            own = given.get("output_path") if isinstance(given, Mapping) else given.output_path
            if own is not None and not isinstance(own, str):
                return None
            name = os.path.normpath(own or named(position))
            if name.startswith(("/", "..")):
                return None
            found.append(name)
        return found

    def goes_by_sizes(self, served: set[Role]) -> bool:
        """Whether the largest picture of all inputs decides how the model that draws is loaded."""
        return USUAL.role not in served and self._roles.drawing.memory.goes_by_sizes

    def shapes(self, inputs: Inputs) -> list[Task]:
        """What inputs that only draw ask of a device's memory; see `core.intake.shapes`."""
        kind = KINDS[USUAL.__name__](self._roles.drawing.layers, self._loras)
        return shapes_of(kind, inputs)

    def name_of(self, position: int, given: TaskInput) -> str:
        """The id of an input that only draws, without a look at what it asks for."""
        admission = self._admissions.get(USUAL)
        return admission.name_of(position, given) if admission else claimed_id(given, position)

    def remade(self, items: Sequence[Item]) -> list[Item]:
        """Inputs that only draw, as the model that draws makes them at this moment."""
        return self._roles.drawing.memory.remade(items)

    def settle(
        self,
        items: Sequence[Item],
        known: Mapping[str, Entry],
        served: set[Role],
        more: Sequence[Task] = (),
    ) -> list[Item]:
        """Decide on the memory modes of models that no worker has yet.

        Args:
            known: the ledger's entries by key; empty where nothing is kept.
            served: roles that are decided.
            more: tasks of the model that draws that will follow.

        Raises:
            InputError, DeviceError: the model that draws does not fit.
        """
        settled = list(items)
        for role in dict.fromkeys(task.role for task in self._admissions):
            places = [i for i, item in enumerate(items) if _is_for(item, role)]
            if role in served or not places:
                continue
            own = [items[i] for i in places]
            try:
                own = self._roles[role].settle(own, known, more if role == USUAL.role else ())
            except MultiGPUError as error:
                if role == USUAL.role:
                    raise
                own = [_refused(item, str(error)) for item in own]
            for i, item in zip(places, own, strict=True):
                settled[i] = item
        return settled


def _is_for(item: Item, role: Role) -> bool:
    return isinstance(item, Admitted) and item.role == role


def _refused(item: Item, error: str) -> Item:
    if not isinstance(item, Admitted):
        return item
    return Rejected(item.position, item.task_id, error, cause=UNUSABLE)
