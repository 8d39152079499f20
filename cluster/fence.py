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
        """The other side is there; it is too late to say so after the seconds."""
        if self.holds():
            self._last = time.monotonic()

    def holds(self) -> bool:
        """Whether the other side was heard in time, also where this process was stopped since."""
        if self._silent() < self._seconds:
            return True
        self._fall()
        return False

    def _silent(self) -> float:
        return time.monotonic() - self._last

    def _watch(self) -> None:
        while self.holds():
            time.sleep(max(0.0, min(self._seconds / LOOKS, self._seconds - self._silent())))
