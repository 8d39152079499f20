"""What backends without processes have in common: their reports, and how their workers are seen."""

import itertools
import queue
import threading
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from core.engine.backend import Died, HungUp, Report, Said
from core.engine.fetch import Fetch
from core.events import Listener
from core.worker_spec import WorkerSpec


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
            self._reports = [r for r in self._reports if getattr(r, "slot", None) != slot]

    def has_word(self, slot: str) -> bool:
        """Something that a slot's worker said, or that it hung up, waits to be reported."""
        with self._lock:
            words = [r for r in self._reports if isinstance(r, Said | HungUp)]
            return any(word.slot == slot for word in words)

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


class Worker(Protocol):
    """A worker that is no process."""

    @property
    def dead(self) -> bool: ...
    def kill(self) -> None: ...


W = TypeVar("W", bound=Worker)


class WithoutProcesses(Generic[W]):
    """The part of a `WorkerBackend` that is the same whatever its workers are."""

    def __init__(self) -> None:
        self._reports = ReportQueue()
        self._workers: dict[str, W] = {}  # whose death was not reported yet
        self._ticks = itertools.count()

    def fetch(self, spec: WorkerSpec, listener: Listener) -> Fetch | None:
        return None

    def is_gone(self, slot: str) -> bool:
        worker = self._workers.get(slot)
        return worker is None or worker.dead

    def has_word(self, slot: str) -> bool:
        return self._reports.has_word(slot)

    def kill(self, slot: str) -> None:
        if (worker := self._workers.get(slot)) is not None:
            worker.kill()

    def poll(self, timeout: float) -> list[Report]:
        reports = self._reports.poll(timeout)
        for report in reports:
            if isinstance(report, Died):
                self._workers.pop(report.slot, None)
        return reports

    def wake(self) -> None:
        self._reports.wake()
