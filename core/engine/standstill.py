"""Tells why tasks wait while every worker that could take them is drained."""

from collections.abc import Mapping, Sequence

from loguru import logger

from core.engine.scheduler import Scheduler
from core.engine.served_model import ServedModel
from core.engine.slots import Slots
from core.engine.worker_slot import WorkerSlot
from core.events import Listener, TasksWait

MOST_NAMED = 4  # workers that a sentence names


class Standstill:
    """Notices tasks that no worker may be given. Called from the engine's thread alone.

    Where all workers are given up, tasks fail and do not wait; so one of them is drained at least.

    Args:
        slots: all of the engine's.
        models: what the engine serves; its own mapping.
        listener: told once when tasks of a model come to wait so, and once when they do no more.
    """

    def __init__(
        self,
        slots: Slots,
        models: Mapping[str, ServedModel],
        scheduler: Scheduler,
        listener: Listener,
    ) -> None:
        self._slots = slots
        self._models = models
        self._scheduler = scheduler
        self._listener = listener
        self._told: dict[str, str] = {}  # by model: why its tasks wait

    def look(self) -> None:
        """Tell what has changed since the last look."""
        if not self._told and not any(slot.drained for slot in self._slots.of("drained")):
            return
        for model in self._models.values():
            why = self._reason(model)
            if why == self._told.get(model.name):
                continue
            if why is not None:
                self._told[model.name] = why
                logger.warning(why)
            else:
                del self._told[model.name]
                if self._scheduler.waiting(model.name):
                    logger.info(f"Tasks to {model.name} wait no longer for a drained worker.")
            self._listener(TasksWait(model.name, why))

    def _reason(self, model: ServedModel) -> str | None:
        """Why no worker may be given a model's waiting tasks; None if one may, or none wait."""
        if model.given_up is not None or not self._scheduler.waiting(model.name):
            return None
        ours = [slot for slot in self._slots if slot.name in model.slots]
        able = [slot for slot in ours if slot.can_serve(model)]
        if not all(slot.drained for slot in able):
            return None
        states = [f"{_named(able)} drained"]
        if unfit := [slot for slot in ours if slot not in able]:
            states.append(f"{_named(unfit)} given up")
        end = "it is" if len(able) == 1 else "one of them is"
        return (
            f"Tasks to {model.name} wait: {' and '.join(states)}. They go on when {end} undrained."
        )


def _named(slots: Sequence[WorkerSlot]) -> str:
    names = [slot.name for slot in slots]
    if len(names) > MOST_NAMED:
        return f"all {len(names)} workers ({', '.join(names[: MOST_NAMED - 1])}, …) are"
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"
