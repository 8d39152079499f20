"""The memory mode of a role's workers, decided once a run: by tasks, devices and what is there."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from loguru import logger

from core.devices.device import Device
from core.devices.memory_abilities import Abilities, Form, form_of_file
from core.devices.memory_fit import MemoryFit, fit_memory
from core.devices.model_choice import ModelChoice, checkpoint_of
from core.devices.working_memory import USUAL_SIDE, Demand
from core.intake.admission import Admitted, Item, made_by
from core.memory_modes import FACTS, Memory, Mode, changes_pixels, refuse_unusable
from core.settings import GenerationDefaults
from core.store.ledger import Entry
from core.tasks import EditTask, GenerateTask, Task

_PICTURES: list[Mode] = ["full", *(mode for mode in FACTS if changes_pixels(mode))]


class MemoryChoice:
    """A model, and the memory mode in which all workers of one role load it.

    Args:
        model: with the mode that the setting names.
        memory: the setting.
        role: generate, edit or score.
        index_file: what the model's folder holds.
        identity: all about a model that decides its results, as in fingerprints.
        key: the setting, as messages name it.
        form: of the model, where its path does not tell.

    Raises:
        InputError: the mode that the setting names cannot work for this role on these devices.
    """

    def __init__(
        self,
        model: ModelChoice,
        memory: Memory,
        devices: Sequence[Device],
        role: str,
        index_file: str,
        identity: Callable[[ModelChoice], str],
        key: str = "memory",
        form: Form = "parts",
    ) -> None:
        self.model = model
        self._form = form
        if model.base_model is not None:
            self._form = form_of_file(model.path_or_id)
        self.fit: MemoryFit | None = None  # once it is decided
        self._memory = memory
        self._devices = devices
        self._role = role
        self._index_file = index_file
        self._identity = identity
        self._key = key
        self._kept: Mode | None = None  # the mode of finished pictures
        self._demand: Demand | None = None  # of the newest batch
        self._on_gpu = any(device.kind == "cuda" for device in devices)
        refuse_unusable(model.memory, role, not self._on_gpu, key)

    @property
    def goes_by_sizes(self) -> bool:
        """Whether the mode is still to be decided, or checked, by the largest picture."""
        return self.fit is None and self._on_gpu and self.model.has_files

    @property
    def identity(self) -> str:
        """All about the model that decides its results, as things stand."""
        return self._identity(self.model)

    @property
    def is_open(self) -> bool:
        """Whether the mode is still to be decided, so that finished pictures may decide it."""
        return self.fit is None and self._memory == "auto" and self._on_gpu

    def settle(
        self, items: Sequence[Item], known: Mapping[str, Entry], demand: Demand
    ) -> list[Item]:
        """Decide for a batch; returns it with the model that its results are made by then.

        Pictures that are finished are not drawn again because memory is free now that was not, or
        the other way round: `auto` keeps to the mode in which most of the batch were made.

        Args:
            known: the ledger's entries by key; empty where nothing is kept.

        Raises:
            InputError, DeviceError: see `core.devices.memory_fit.fit_memory`.
        """
        tasks = [item for item in items if isinstance(item, Admitted)]
        self._demand = demand
        if self._memory == "auto":
            self._kept = self._mode_of_finished(tasks, known)
        if self._kept is not None:
            self.model = replace(self.model, memory=self._kept)
        if not tasks or all(_is_finished(admitted, known) for admitted in self.remade(tasks)):
            return self.remade(items)  # no worker will be needed
        self.decide(demand)
        return self.remade(items)

    def ensure(self, usual: Demand) -> None:
        """Decide before workers start, if no batch made it necessary so far.

        Args:
            usual: what is asked for where no batch is known yet.

        Raises:
            InputError, DeviceError: see `core.devices.memory_fit.fit_memory`.
        """
        if self.fit is None:
            self.decide(self._demand or usual)

    def decide(self, demand: Demand) -> None:
        """Decide the memory mode now, and log the decision.

        Raises:
            InputError, DeviceError: see `core.devices.memory_fit.fit_memory`.
        """
        if not self.model.has_files:
            return
        own = sum(_size(lora.path) for lora in self.model.loras)
        demand = replace(demand, lora_bytes=demand.lora_bytes + own)
        checkpoint = checkpoint_of(self.model, self._index_file, ask_hub=self._on_gpu)
        self.fit = fit_memory(
            _name_of(self.model),
            self._memory,
            checkpoint,
            demand,
            self._devices,
            Abilities.here(self._devices, self._role, self.model.dtype, self._form),
            self._kept,
            self._key,
        )
        self.model = replace(self.model, memory=self.fit.mode)
        if self.fit.table:
            logger.info(self.fit.table)
        if self.fit.reason:
            logger.info(self.fit.reason)

    def change_to(self, mode: Mode) -> Callable[[Admitted], Admitted]:
        """Load the model in another mode from now on; returns what remakes a task for it."""
        self.model = replace(self.model, memory=mode)
        identity = self._identity(self.model)
        return lambda admitted: made_by(admitted, identity)

    def remade(self, items: Sequence[Item]) -> list[Item]:
        """Inputs with the model that their results are made by as things stand."""
        identity = self._identity(self.model)
        return [made_by(item, identity) if isinstance(item, Admitted) else item for item in items]

    def _mode_of_finished(
        self, tasks: Sequence[Admitted], known: Mapping[str, Entry]
    ) -> Mode | None:
        """The memory mode in which most of the batch's finished results were made."""
        identities = {m: self._identity(replace(self.model, memory=m)) for m in _PICTURES}
        found: Counter[Mode] = Counter()
        for admitted in tasks:
            entry = known.get(admitted.output.key)
            if entry is None or entry.state != "done":
                continue
            for mode, identity in identities.items():
                if made_by(admitted, identity).fingerprint == entry.fingerprint:
                    found[mode] += 1
                    break
        return found.most_common(1)[0][0] if found else None


def _is_finished(item: Item, known: Mapping[str, Entry]) -> bool:
    if not isinstance(item, Admitted):
        return True
    entry = known.get(item.output.key)
    done = entry is not None and entry.state == "done" and entry.fingerprint == item.fingerprint
    return done and item.output.file.exists()


def _name_of(model: ModelChoice) -> str:
    return model.identity.partition("#")[0]


def usual_demand(layers: Sequence[GenerationDefaults]) -> Demand:
    """What the settings ask for where no task is known yet; the first layer that says it counts."""
    return Demand(
        next((layer.width for layer in layers if layer.width), USUAL_SIDE),
        next((layer.height for layer in layers if layer.height), USUAL_SIDE),
        guided=next((g for layer in layers if (g := _guided(layer)) is not None), True),
    )


def demand_of(tasks: Iterable[Task], resident_loras: int) -> Demand:
    """The most that a batch's pictures ask for.

    Args:
        resident_loras: how many of the LoRAs a worker keeps.
    """
    pictures = [task for task in tasks if isinstance(task, GenerateTask | EditTask)]
    sizes = [(task.width or USUAL_SIDE, task.height or USUAL_SIDE) for task in pictures]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(USUAL_SIDE,) * 2)
    stacks = [task.lora_stack for task in pictures]
    at_once = max([resident_loras, *map(len, stacks)])
    loras = sorted(map(_size, {lora.path for stack in stacks for lora in stack}))
    return Demand(
        width,
        height,
        sources=max((len(t.source_images) for t in pictures if isinstance(t, EditTask)), default=0),
        guided=any(_guided(task) is not False for task in pictures),
        lora_bytes=sum(loras[-at_once:]),
    )


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except OSError:  # gone since it was read; its tasks will say so
        return 0


def _guided(asked: GenerationDefaults | GenerateTask | EditTask) -> bool | None:
    """Whether steps are computed with and without the prompt; None where it is left open."""
    if isinstance(asked, EditTask):
        return None if asked.true_cfg_scale is None else asked.true_cfg_scale > 1
    if asked.cfg is not None:
        return asked.cfg > 1
    return None if asked.guidance_scale is None else asked.guidance_scale > 0
