"""Which slot serves which model; see `core.engine.model_switch` for the policy."""

from collections.abc import Mapping, Sequence

from core.engine.scheduler import Scheduler
from core.engine.served_model import ServedModel
from core.engine.supervisor import Supervisor
from core.engine.worker_slot import WorkerSlot


class ModelAssignment:
    """Has slots take up models as tasks ask for them."""

    def __init__(
        self,
        slots: Sequence[WorkerSlot],
        models: Mapping[str, ServedModel],
        scheduler: Scheduler,
    ) -> None:
        self._slots = slots
        self._models = models
        self._scheduler = scheduler
        self._warm: set[str] = set()

    def keep_warm(self, name: str) -> None:
        """Start a model's workers before there are tasks for them."""
        self._warm.add(name)

    def expect(self, job: int, tasks: int) -> None: ...
    def arrived(self, job: int, tasks: int) -> None: ...
    def ended(self, job: int) -> None: ...

    @property
    def undecided(self) -> bool:
        return False

    def assign(self, supervisor: Supervisor, now: float) -> None:
        for model in self._models.values():
            if model.name in self._warm or self._scheduler.waiting(model.name):
                for slot in self._slots:
                    if slot.model is None and slot.can_serve(model):
                        supervisor.give_model(slot, model)
