"""Waiting until the GPU memory that a worker held is free, before another model takes its place."""

import time
from collections.abc import Callable, Sequence

from loguru import logger

from core.devices.device import Device
from core.engine.worker_slot import WorkerSlot

TOLERANCE = 256 * 1024**2  # bytes of GPU memory that may stay in use
POLL = 0.1  # seconds between looks at GPU memory


class MemoryRelease:
    """What each slot's device had in use before its first worker, and whether that is so again.

    Args:
        slots: all of the engine's; its own list.
        in_use: bytes in use on devices; None where that cannot be told, as on a CPU.
        patience: seconds to wait; then the next worker starts all the same.
    """

    def __init__(
        self,
        slots: Sequence[WorkerSlot],
        in_use: Callable[[Sequence[Device]], int | None],
        patience: float,
    ) -> None:
        self._slots = slots
        self._in_use = in_use
        self._patience = patience
        self._before: dict[str, int | None] = {}
        self._waits: dict[str, tuple[float, float]] = {}  # since when, and when to look again

    def starts(self, slot: WorkerSlot) -> None:
        """A worker is about to start in a slot."""
        if slot.name not in self._before:
            self._before[slot.name] = self._in_use([slot.device])

    def left(self, slot: WorkerSlot, now: float) -> None:
        """A worker has left its slot to another model."""
        if self._before.get(slot.name) is not None:
            self._waits[slot.name] = (now, now)

    def holds_up(self, slot: WorkerSlot) -> bool:
        """The slot's next worker has to wait."""
        return slot.name in self._waits

    @property
    def waiting(self) -> bool:
        """Whether some slot waits for memory to be released."""
        return bool(self._waits)

    def is_free(self, slot: WorkerSlot) -> bool:
        """The last worker's memory is free again, or has been waited for long enough."""
        if slot.name not in self._waits:
            return True
        if any(s is not slot and s.alive and s.gpus & slot.gpus for s in self._slots):
            del self._waits[slot.name]  # what the others hold cannot be told apart
            return True
        since, look_at = self._waits[slot.name]
        now = time.monotonic()
        if now < look_at:
            return False
        kept = (self._in_use([slot.device]) or 0) - (self._before[slot.name] or 0)
        gib = f"{max(0, kept) / 1024**3:.1f} GiB"
        if kept <= TOLERANCE:
            logger.info(f"{slot.name}: the model left its GPU; {gib} more in use than before it.")
        elif now - since >= self._patience:
            logger.warning(f"{slot.name}: the model left, but {gib} of GPU memory stay in use.")
        else:
            self._waits[slot.name] = (since, now + POLL)
            return False
        del self._waits[slot.name]
        return True
