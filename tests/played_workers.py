"""Stub workers that play themselves: each does its tasks in a thread, as a simulated device does.

No process is started, tasks and loads take the time that the settings say, and a test may hold a
task back or refuse a load.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.messages import Done, Keep, Lease, Load, Loaded, LoadFailed, Ready, Stop
from tests.stub_backend import StubBackend, StubWorker
from workers.simulated_gpu import SimulatedGpu


class PlayedWorkers:
    """Plays all workers of a run, each in a thread: it serves until it is asked to leave.

    Args:
        may: told of the worker and the lease before a task ends; it may wait.
        loads: says whether a worker can load its model.
        leaves: says whether a worker heeds the poison pill.
        took: the seconds that a worker reports for a task; by default those that it took.
    """

    def __init__(
        self,
        may: Callable[[StubWorker, Lease], object] = lambda worker, lease: None,
        loads: Callable[[StubWorker], bool] = lambda worker: True,
        leaves: Callable[[StubWorker], bool] = lambda worker: True,
        took: Callable[[Lease], float] | None = None,
    ) -> None:
        self.backend = _StartingBackend(self._play)
        self.given: list[tuple[str, str]] = []  # slot and role of each lease, in order
        self._may, self._loads, self._leaves, self._took = may, loads, leaves, took

    def _play(self, worker: StubWorker) -> None:
        threading.Thread(target=self._serve, args=(worker,), daemon=True).start()

    def _serve(self, worker: StubWorker) -> None:
        held: dict[str, str] = {}  # LoRAs by their content
        worker.say(Ready(worker.pid, "stub", "STUB", None, 0.0))
        for message in worker.orders():
            match message:
                case Load():
                    SimulatedGpu(worker.spec, lambda level, text: None).load()
                    loads = self._loads(worker)
                    worker.say(Loaded("Stub", 0.0) if loads else LoadFailed("input", "no such"))
                case Keep():
                    held.pop(message.sha256, None)
                    if message.way != "unload":
                        held[message.sha256] = message.path
                    worker.keep(message, *held)
                case Lease():
                    self.given.append((worker.slot, worker.spec.role))
                    self._may(worker, message)
                    do_task(worker, message, self._took and self._took(message))
                case Stop() if self._leaves(worker):
                    worker.die(0)


class _StartingBackend(StubBackend):
    """Tells of every worker that it starts."""

    def __init__(self, begin: Callable[[StubWorker], None]) -> None:
        super().__init__()
        self._begin = begin

    def start(self, slot: str, *rest: Any) -> None:
        super().start(slot, *rest)
        self._begin(self.started[slot][-1])

    def roles(self) -> list[tuple[str, str]]:
        """Slot and role of every worker that was started."""
        return [(w.slot, w.spec.role) for workers in self.started.values() for w in workers]


def do_task(worker: StubWorker, lease: Lease, took: float | None = None) -> None:
    """What a simulated device makes of it.

    Args:
        took: the seconds that are reported; None: those that it took.
    """
    started = time.monotonic()
    [product] = SimulatedGpu(worker.spec, lambda level, text: None).run([lease])
    worker.draw(lease, took or max(time.monotonic() - started, 0.001))
    data = product.encode(lease)
    Path(lease.partial_path).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    worker.say(Done(lease.lease_id, len(data), digest, 0.0, product.used))
