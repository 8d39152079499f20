"""LoRAs that workers hold because somebody asked for it, before any task does.

A worker is told between two tasks, one LoRA at a time, so its deadline and the blame for its death
are that LoRA's alone. What is pinned is told to every worker that loads the model later, too.
"""

import time
from collections.abc import Collection, Sequence

from loguru import logger

from core.engine.backend import Died, WorkerBackend
from core.engine.known_loras import MOST_STRIKES
from core.engine.served_model import ServedModel
from core.engine.worker_slot import State, WorkerSlot
from core.errors import InputError
from core.lora_stack import CheckedLora
from core.messages import LASTING, Keep, KeepWay, Kept

NOT_HELD = (
    "the worker let it go, for which its log has the reason; it is pinned there again when the "
    "worker starts anew, or when that is asked for again"
)

NEVER_LOADED = "the worker was given up before it had loaded it"


class LoraKeeper:
    """Has workers load, pin and unload LoRAs. Called from the engine's thread alone.

    Args:
        slots: all of the engine's; its own list, which changes.
    """

    def __init__(self, slots: Sequence[WorkerSlot], backend: WorkerBackend) -> None:
        self._slots = slots
        self._backend = backend
        self._hung: set[str] = set()  # slots whose workers are ended over an order

    # -- what is asked for -------------------------------------------------------

    def load(self, model: ServedModel, loras: Sequence[CheckedLora], pin: bool) -> None:
        """Have the workers of a model hold LoRAs; what is pinned already stays so.

        Raises:
            InputError: they are too many beside those that are pinned, or nobody has the model.
        """
        if model.given_up is not None:
            raise InputError(model.given_up)
        asked = model.loras
        _check_room(model, {lora.sha256 for lora in loras})
        slots = self._having(model)
        if not slots and not pin:
            raise InputError(
                f"No worker has the model to {model.name} with: load that first, or pin the LoRAs, "
                "so that workers have them as soon as they have the model."
            )
        for lora in loras:
            asked.forget_problems(lora.sha256)
            asked.paths[lora.sha256] = lora.path
            if pin or lora.sha256 in asked.pinned:
                asked.pinned[lora.sha256] = lora.path
            way: KeepWay = "pin" if lora.sha256 in asked.pinned else "load"
            for slot in slots:
                slot.order(Keep(lora.sha256, lora.path, way))

    def unload(
        self, model: ServedModel, hashes: Collection[str], paths: Collection[str] = ()
    ) -> None:
        """Have no worker of a model hold LoRAs; one that is using them lets go after its task.

        Args:
            hashes: of their content.
            paths: where they lie; what was found there before, and has changed since, goes, too.
        """
        for sha256 in {*hashes, *model.loras.at(paths)}:
            path = model.loras.paths.get(sha256, "")
            model.loras.pinned.pop(sha256, None)
            model.loras.forget_problems(sha256)
            for slot in self._having(model):
                slot.order(Keep(sha256, path, "unload"))

    def _having(self, model: ServedModel) -> list[WorkerSlot]:
        """Slots that have a model, or whose worker is to load it."""
        return [
            s
            for s in self._slots
            if s.model is model and s.wanted and s.state not in (State.RETIRED, State.STOPPED)
        ]

    # -- what workers are told ---------------------------------------------------

    def worker_loaded(self, slot: WorkerSlot) -> None:
        """A worker has its model, and nothing else yet."""
        assert slot.model is not None
        slot.model.loras.starts_anew(slot.name)
        for sha256, path in slot.model.loras.pinned.items():
            slot.order(Keep(sha256, path, "pin"))

    def send_next(self, slot: WorkerSlot) -> None:
        """Give a worker that has nothing on its device its next order."""
        assert slot.model is not None
        order = next(iter(slot.orders.values()))
        if self._backend.send(slot.name, order):  # else it is dead, and its successor is told
            del slot.orders[order.sha256]
            slot.keeping = order
            slot.busy_since = time.monotonic()
            slot.set_deadline(slot.model.times.allowed_for_lora())

    # -- what becomes of it ------------------------------------------------------

    def kept(self, slot: WorkerSlot, message: Kept) -> None:
        """A worker has done what it was told, or could not."""
        model, order = slot.model, slot.keeping
        assert model is not None
        slot.keeping = None
        model.lora_loads += message.lora_loads
        model.lora_switches += message.lora_switches
        self.holds(slot, message.resident_loras)
        if message.kind is None:
            model.loras.went_well(message.sha256, slot.name)
            if message.lora_loads:
                model.times.learn_lora(message.seconds)
        elif order is not None:
            self._failed(slot, model, order, message)

    def holds(self, slot: WorkerSlot, resident: Collection[str]) -> None:
        """Note what a worker says that it has in memory."""
        assert slot.model is not None
        lost = slot.loras.difference(resident)
        slot.loras = frozenset(resident)
        for sha256 in lost & slot.model.loras.pinned.keys():
            slot.model.loras.problems[sha256][slot.name] = NOT_HELD
        slot.model.loras.came(slot.loras, slot.name)

    def hung(self, slot: WorkerSlot) -> None:
        """A worker is ended because an order took too long."""
        self._hung.add(slot.name)
        self._strike(slot, "loading it took longer than allowed", MOST_STRIKES)

    def died(self, slot: WorkerSlot, death: Died, ordered: bool) -> None:
        """A worker is gone, and what it was to load and did not, its successor loads.

        Not if it died over that. One that was killed, or was saving a result meanwhile, need not
        have died of the LoRA.

        Args:
            ordered: the engine had it killed.
        """
        order, hung = slot.keeping, slot.name in self._hung
        self._hung.discard(slot.name)
        if order is not None and not hung:
            if ordered or death.blameless:
                slot.orders = {order.sha256: order, **slot.orders}
            else:
                certain = not death.by_sigkill and not slot.attempts()
                self._strike(slot, death.how, MOST_STRIKES if certain else 1)
        comes_again = slot.wanted and slot.state is not State.RETIRED
        for sha256, left in list(slot.orders.items()):
            if left.way == "unload" or not comes_again:  # a fresh worker holds nothing
                del slot.orders[sha256]
        slot.touch()

    def given_up(self, slot: WorkerSlot) -> None:
        """A slot has its model no more: what its worker was still to load is told as missing."""
        assert slot.model is not None
        in_hand = [slot.keeping] if slot.keeping is not None else []
        for order in (*in_hand, *slot.orders.values()):
            if order.way != "unload":
                slot.model.loras.problems[order.sha256].setdefault(slot.name, NEVER_LOADED)
        slot.orders.clear()
        slot.touch()

    def _failed(self, slot: WorkerSlot, model: ServedModel, order: Keep, message: Kept) -> None:
        model.loras.problems[order.sha256][slot.name] = message.error
        if message.kind == "lora" or message.kind in LASTING:  # with every worker, every time
            self._give_up(model, order.sha256, f"{slot.name}: {message.error}")
            return
        logger.warning(
            f"{slot.name}: LoRA {model.loras.name(order.sha256)} is not loaded: {message.error}"
        )
        if message.kind == "device":
            self._strike(slot, message.error, 1, order)

    def _strike(
        self, slot: WorkerSlot, reason: str, weight: int, order: Keep | None = None
    ) -> None:
        order = order or slot.keeping
        assert slot.model is not None and order is not None
        loras = slot.model.loras
        # A worker that starts anew loads what is pinned; what is not, only when a task brings it.
        loras.problems[order.sha256][slot.name] = f"the worker died while it loaded it: {reason}"
        if loras.strike(order.sha256, weight):
            loras.problems[order.sha256][slot.name] = f"the worker died over it: {reason}"
            self._give_up(slot.model, order.sha256, f"{slot.name} died over it: {reason}")

    def _give_up(self, model: ServedModel, sha256: str, reason: str) -> None:
        """Have no further worker load a LoRA; those that hold it may let it be displaced."""
        was_pinned = model.loras.pinned.pop(sha256, None) is not None
        for slot in self._having(model):
            slot.orders.pop(sha256, None)
            slot.touch()
            if was_pinned and sha256 in slot.loras:
                slot.order(Keep(sha256, model.loras.paths[sha256], "load"))
        what = "pinned no more" if was_pinned else "not loaded"
        logger.error(f"LoRA {model.loras.name(sha256)} is {what}: {reason}")


def _check_room(model: ServedModel, wanted: Collection[str]) -> None:
    most, pinned = model.usual_spec.max_resident_loras, model.loras.pinned.keys()
    count = len(pinned | set(wanted))
    if count > most:
        beside = f" beside the {len(pinned)} that are pinned" if pinned else ""
        raise InputError(
            f"A worker keeps {most} LoRAs in memory (workers.max_resident_loras), so these "
            f"{len(wanted)} do not fit{beside}. Ask for fewer, unload some, or raise the setting."
        )
