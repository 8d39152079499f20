"""Workers without processes: a test says a worker's words itself, in the order that it needs.

backend = StubBackend()
... MultiGPUImageGenerator(1, config=simulated(), output_dir=folder, backend=backend)
worker = backend.worker("cpu0").serve()
worker.finish(worker.hear_lease())
"""

import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.devices.device import Device
from core.engine.backend import Died, HungUp, Report, Said
from core.messages import (
    Done,
    FailureKind,
    Generated,
    Keep,
    Kept,
    Lease,
    Load,
    Loaded,
    Ready,
    Stop,
    ToMain,
    ToWorker,
    decode,
    encode,
)
from core.worker_spec import WorkerSpec
from tests.conftest import PATIENCE, wait_until
from tests.report_queue import ReportQueue, WithoutProcesses

PICTURE = b"not empty"


class StubWorker:
    """One incarnation, as the test plays it.

    Attributes:
        killed: the engine had it killed.
        dies_of_sigkill: False for one that is stuck in the kernel.
        listens: False for one whose end of the pipe is closed already, a moment before its death.
        gets_on: it computes or reads, as seen from outside.
        dead: it has died.
    """

    def __init__(self, slot: str, device: Device, spec: WorkerSpec, reports: ReportQueue) -> None:
        self.slot, self.device, self.spec = slot, device, spec
        self.pid = os.getpid()
        self.killed = self.dead = False
        self.dies_of_sigkill = self.listens = self.gets_on = True
        self._reports = reports
        self._inbox: queue.Queue[ToWorker | None] = queue.Queue()  # None: it is dead
        self._dying = threading.Lock()
        self._forgotten = False

    # -- as the backend sees it ----------------------------------------------

    def receive(self, message: ToWorker) -> bool:
        if self.dead or not self.listens:
            return False
        self._inbox.put(decode(encode(message)))
        return True

    def kill(self) -> None:
        self.killed = True
        if self.dies_of_sigkill:
            self.die(-signal.SIGKILL)

    def forget(self) -> None:
        self._forgotten = True

    # -- as the test plays it ------------------------------------------------

    def say(self, message: ToMain) -> None:
        """Does nothing once it is dead, as the engine may have it killed at any moment."""
        with self._dying:
            if not self.dead and not self._forgotten:
                self._reports.put(Said(self.slot, decode(encode(message))))

    def hang_up(self) -> None:
        """Say nothing more, and be there."""
        self._reports.put(HungUp(self.slot))

    def die(
        self, exit_code: int = -signal.SIGSEGV, *last_words: ToMain, blameless: bool = False
    ) -> None:
        """Be dead by the time that the engine finds the last words; does nothing twice.

        Args:
            exit_code: -n for signal n.
            blameless: it goes with something that it depends on.
        """
        with self._dying:
            if self.dead or self._forgotten:
                return
            self.dead = True
            how = f"its process ended with exit code {exit_code}"
            if exit_code < 0:
                how = f"its process was ended by {signal.Signals(-exit_code).name}"
            said = [Said(self.slot, decode(encode(message))) for message in last_words]
            by_sigkill = exit_code == -signal.SIGKILL
            self._reports.put(*said, Died(self.slot, how, by_sigkill, blameless))
        self._inbox.put(None)

    @property
    def has_mail(self) -> bool:
        """The engine sent something that was not heard yet."""
        return not self.dead and not self._inbox.empty()

    def hear(self, patience: float = PATIENCE) -> Any:
        """The engine's next message."""
        try:
            message = self._inbox.get(timeout=patience)
        except queue.Empty:
            raise AssertionError(f"nothing came to {self.slot}") from None
        assert message is not None, f"{self.slot} is dead"
        return message

    def orders(self) -> Iterator[ToWorker]:
        """All messages of the engine, as they come, until its death."""
        while (message := self._inbox.get()) is not None:
            yield message

    def hear_lease(self) -> Lease:
        message = self.hear()
        assert isinstance(message, Lease)
        return message

    def hear_keep(self) -> Keep:
        message = self.hear()
        assert isinstance(message, Keep)
        return message

    def keep(self, order: Keep, *resident: str, seconds: float = 0.001) -> None:
        """It did as it was told; it holds these LoRAs now."""
        loads = order.way != "unload"
        self.say(Kept(order.sha256, seconds, int(loads), 0, list(resident)))

    def refuse(self, order: Keep, kind: FailureKind, error: str, *resident: str) -> None:
        """It could not do as it was told."""
        self.say(Kept(order.sha256, 0.001, 0, 0, list(resident), kind, error))

    def serve(self) -> "StubWorker":
        """Boot and load."""
        self.say(Ready(self.pid, "stub", "STUB", None, 0.0))
        assert isinstance(self.hear(), Load)
        self.say(Loaded("Stub", 0.0))
        return self

    def draw(self, lease: Lease, seconds: float = 0.001, loras: Sequence[str] = ()) -> None:
        """The device is done with it; it is still to be saved. It holds these LoRAs now."""
        self.say(Generated(lease.lease_id, seconds, resident_loras=list(loras)))

    def save(self, lease: Lease) -> None:
        Path(lease.partial_path).write_bytes(PICTURE)
        self.say(Done(lease.lease_id, len(PICTURE), "0" * 64, 0.0))

    def finish(self, lease: Lease, seconds: float = 0.001, loras: Sequence[str] = ()) -> None:
        self.draw(lease, seconds, loras)
        self.save(lease)

    def leave_when_asked(self) -> None:
        """End at the poison pill, whenever that comes."""
        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        for message in self.orders():
            assert isinstance(message, Stop)
            self.die(0)

    def finish_all(self, count: int) -> None:
        """Play it to the end of a batch of which it gets `count` tasks more."""
        for _ in range(count):
            self.finish(self.hear_lease())
        self.leave_when_asked()


class StubBackend(WithoutProcesses[StubWorker]):
    """Starts stub workers.

    Attributes:
        started: every incarnation, by slot.
        prepared: what the engine made ready for.
        refusals: what the next starts raise.
        ready: set it through `becomes_ready`.
    """

    def __init__(self, ready: bool = True) -> None:
        super().__init__()
        self.ready = ready
        self.started: dict[str, list[StubWorker]] = {}
        self.prepared: list[WorkerSpec] = []
        self.refusals: list[Exception] = []
        self.closed = False
        self._polls = 0

    def worker(self, slot: str = "cpu0", incarnation: int = 1) -> StubWorker:
        """Once it is started."""
        started = self.started.setdefault(slot, [])
        wait_until(lambda: len(started) >= incarnation, f"{slot}'s start number {incarnation}")
        return started[incarnation - 1]

    def becomes_ready(self) -> None:
        self.ready = True
        self.wake()

    def let_the_engine_act(self) -> None:
        """Wait until it has acted on everything that was said to it by now."""
        before = self._polls

        def turned() -> bool:
            self.wake()
            return self._polls >= before + 2

        wait_until(turned, "a turn of the engine")

    # -- as the engine sees it -----------------------------------------------

    def prepare(self, spec: WorkerSpec) -> None:
        self.prepared.append(spec)

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        assert slot not in self._workers
        if self.refusals:
            raise self.refusals.pop(0)
        worker = self._workers[slot] = StubWorker(slot, device, spec, self._reports)
        self.started.setdefault(slot, []).append(worker)

    def send(self, slot: str, message: ToWorker) -> bool:
        worker = self._workers.get(slot)
        return worker is not None and worker.receive(message)

    def reads_along(self, slot: str) -> bool:
        worker = self._workers.get(slot)
        return worker is not None and not worker.has_mail

    def progress(self, slot: str) -> object:
        worker = self._workers.get(slot)
        return next(self._ticks) if worker is not None and worker.gets_on else None

    def forget(self, slot: str) -> None:
        if (worker := self._workers.pop(slot, None)) is not None:
            worker.forget()
            self._reports.drop(slot)

    def poll(self, timeout: float) -> list[Report]:
        self._polls += 1
        return super().poll(timeout)

    def close(self) -> None:
        for worker in [*self._workers.values()]:
            worker.kill()
        self._workers.clear()
        self.closed = True
