"""Waiting on a node until the GPU memory that the worker before held is free."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from core.devices.device import Device, memory_in_use
from core.engine.memory_release import POLL, TOLERANCE

PATIENCE = 60.0  # seconds; then the next worker starts all the same


class NodeMemory:
    """What devices had in use before their first worker, and whether that is so again.

    Args:
        in_use: bytes in use on devices of this machine; None where that cannot be told.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        in_use: Callable[[Sequence[Device]], int | None] = memory_in_use,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._in_use, self._clock = in_use, clock
        self._before: dict[str, int | None] = {}  # by mask
        self._waits: dict[str, tuple[float, float]] = {}  # since when, and when to look again

    def is_free(self, device: Device, has_others: bool) -> bool:
        """Whether a worker may start on a device.

        Args:
            has_others: workers are on it now, whose memory cannot be told apart.
        """
        here, now = replace(device, node=""), self._clock()
        if device.mask not in self._before:
            self._before[device.mask] = self._in_use([here])
        before = self._before[device.mask]
        if before is None or has_others:
            return True
        since, look_at = self._waits.setdefault(device.mask, (now, now))
        if now < look_at:
            return False
        kept = (self._in_use([here]) or 0) - before
        if kept > TOLERANCE and now - since < PATIENCE:
            self._waits[device.mask] = since, now + POLL
            return False
        del self._waits[device.mask]
        return True
