"""Ends a process that nobody has spoken to for too long.

A node that is cut off from the rest cannot be told to stop. Its tasks are done elsewhere
meanwhile, so it has to stop by itself; its worker processes end with it.
"""

import os
import threading
import time
from collections.abc import Callable

EXIT = 88
LOOKS = 8  # within the time


class Fence:
    """Calls `fall` when `heard` was not called for some seconds.

    Args:
        fall: by default the process ends at once, whatever its other threads do.
    """

    def __init__(self, seconds: float, fall: Callable[[], None] = lambda: os._exit(EXIT)) -> None:
        self._seconds = seconds
        self._fall = fall
        self._last = time.monotonic()
        threading.Thread(target=self._watch, name="fence", daemon=True).start()

    def heard(self) -> None:
        """The other side is there."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        while (silent := time.monotonic() - self._last) < self._seconds:
            time.sleep(min(self._seconds / LOOKS, self._seconds - silent))
        self._fall()
