"""What backends without processes report to the engine."""

import queue
import threading
from contextlib import suppress

from core.engine.backend import Died, Report


class ReportQueue:
    """Reports, in order, from any thread to the engine's; `wake` may come of a signal handler."""

    def __init__(self) -> None:
        self._reports: list[Report] = []
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put(self, *reports: Report) -> None:
        """Report all of this at once: nobody finds a part of it."""
        with self._lock:
            self._reports += reports
        self.wake()

    def drop(self, slot: str) -> None:
        """Report nothing more of what came from a slot's worker."""
        with self._lock:
            self._reports = [report for report in self._reports if report.slot != slot]

    def has_word(self, slot: str) -> bool:
        """Something that a slot's worker said, or that it hung up, waits to be reported."""
        with self._lock:
            return any(r.slot == slot and not isinstance(r, Died) for r in self._reports)

    def wake(self) -> None:
        self._calls.put(None)

    def poll(self, timeout: float) -> list[Report]:
        with suppress(queue.Empty):
            self._calls.get(timeout=max(0.0, timeout))
            while True:
                self._calls.get_nowait()
        with self._lock:
            reports, self._reports = self._reports, []
        return reports
