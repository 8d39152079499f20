"""The model that one role has in a run: how it was chosen, and how its workers are made."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from core.devices.device import Device
from core.devices.memory_choice import MemoryChoice, demand_of
from core.devices.model_choice import SIMULATED, ModelChoice, checkpoint_of
from core.devices.worker_specs import RunSettings, spec_for
from core.devices.working_memory import Demand
from core.intake.admission import Admitted, Item
from core.masked_editors import MASKED
from core.model_settings import Dtype
from core.section import Section
from core.settings import SupervisionSettings
from core.store.ledger import Entry
from core.tasks import Task
from core.worker_spec import Role, WorkerSpec

if TYPE_CHECKING:
    from core.judge import Judge

if TYPE_CHECKING:
    from core.engine.served_model import ServedModel


class SupervisedSettings(RunSettings, Protocol):
    """Settings of a run with workers."""

    @property
    def supervision(self) -> SupervisionSettings: ...


class RoleModel:
    """A model, where it is served, and what its workers are told.

    Args:
        memory: the model, and how its memory mode is decided.
        devices: one for each worker.
        usual: what is asked of the model where no task is known yet.
        layers: defaults of its tasks, the first to count first.
        judge: how it scores; None for other roles.
    """

    def __init__(
        self,
        role: Role,
        memory: MemoryChoice,
        devices: Sequence[Device],
        settings: SupervisedSettings,
        usual: Demand,
        layers: Sequence[Section] = (),
        judge: "Judge | None" = None,
    ) -> None:
        self.role = role
        self.memory = memory
        self.devices = list(devices)
        self.layers = layers
        self.judge = judge
        self._settings = settings
        self._usual = usual

    @property
    def model(self) -> ModelChoice:
        """The model, and how it is loaded."""
        return self.memory.model

    @property
    def dtype(self) -> Dtype:
        """The number format that was asked for, as in fingerprints."""
        return self.model.dtype if self.judge is None else self.judge.settings.dtype

    @property
    def asks_a_server(self) -> bool:
        """Whether its workers load no model, and ask one that is served elsewhere."""
        return (
            self.judge is not None
            and not self.judge.type.loads
            and self.judge.settings.model != SIMULATED
        )

    @property
    def reason(self) -> str:
        """A line for the log: which model it is, and why."""
        reason = self.model.reason
        if self.role == "generate":
            return reason
        return reason.replace("Model:", f"{self.role.capitalize()} with:", 1)

    @cached_property
    def takes_masks(self) -> bool:
        """Whether it edits within masks; of a model that nothing is known of its workers tell."""
        if self.model.path_or_id == SIMULATED:
            return True
        checkpoint = checkpoint_of(self.model, ask_hub=False)
        return checkpoint is None or checkpoint.pipeline in MASKED

    def settle(
        self, items: Sequence[Item], known: Mapping[str, Entry], more: Sequence[Task] = ()
    ) -> list[Item]:
        """Decide on the memory mode for tasks, and for more that follow; see `MemoryChoice`."""
        demand = self._usual
        if self.judge is None:
            tasks = [item.task for item in items if isinstance(item, Admitted)]
            resident = self._settings.workers.max_resident_loras
            demand = demand_of([*tasks, *more], resident)
        return self.memory.settle(items, known, demand)

    def ensure(self) -> None:
        """Decide on the memory mode before workers start, if no batch made it necessary so far.

        Raises:
            InputError, DeviceError: see `core.devices.memory_fit.fit_memory`.
        """
        self.memory.ensure(self._usual)

    def spec_for(self, device: Device) -> WorkerSpec:
        """What a worker on a device is born knowing, as things stand; all share this machine."""
        threads = max(1, len(os.sched_getaffinity(0)) // len(self.devices))
        return spec_for(device, self.role, self.model, self._settings, threads, self.judge)

    def served(self, in_step: bool = False, after: Role | None = None) -> "ServedModel":
        """The model as an engine serves it; see `ServedModel` for the arguments."""
        from core.engine.served_model import ServedModel  # who has a daemon needs nothing of it

        return ServedModel(
            self.role,
            self.devices,
            self.spec_for,
            self._settings.supervision,
            self._settings.workers.concurrent_loads,
            self.memory,
            in_step,
            after,
            joins=not self.asks_a_server,
        )
