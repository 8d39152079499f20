"""Workers without processes: a test says a worker's words itself, in the order that it needs."""

import os
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from core.messages import Done, Generated, Lease, Load, Loaded, Ready, Stop, ToMain, decode, encode
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.processes.worker_link import WorkerMain
from core.tasks import Result
from core.worker_spec import WorkerSpec
from tests.conftest import PATIENCE, wait_until

PICTURE = b"not empty"


class StubWorker:
    """One incarnation, on both sides: main's `WorkerProcess`, and the other ends of its pipes."""

    def __init__(self, name: str, arguments: Any) -> None:
        self.spec: WorkerSpec
        self.spec, reader, writer = arguments
        self.name = name
        self.pid = os.getpid()  # of a process that gets on with what it does
        self.exit_code: int | None = None
        self.orphaned = False
        self.killed = False
        self.dies_of_sigkill = True
        self._dead, self._dying = False, threading.Lock()
        self.reader = Connection(os.dup(reader.fileno()), writable=False)
        self.writer = Connection(os.dup(writer.fileno()), readable=False)
        self.sentinel, self._life = os.pipe()

    # -- as main sees it -----------------------------------------------------

    def kill(self) -> None:
        self.killed = True
        if self.dies_of_sigkill and self.exit_code is None:
            self.die(-signal.SIGKILL)

    def close(self) -> None:
        os.close(self.sentinel)

    # -- as the test plays it ------------------------------------------------

    def die(self, exit_code: int = -signal.SIGSEGV) -> None:
        with self._dying:
            if self._dead:
                return
            self._dead = True
        self.exit_code = exit_code
        self.reader.close()
        self.writer.close()
        os.close(self._life)

    def say(self, message: ToMain) -> None:
        self.writer.send_bytes(encode(message))

    def hear(self) -> Any:
        """Main's next message."""
        assert self.reader.poll(PATIENCE), f"nothing came to {self.name}"
        return decode(self.reader.recv_bytes())

    def hear_lease(self) -> Lease:
        message = self.hear()
        assert isinstance(message, Lease)
        return message

    def serve(self) -> "StubWorker":
        """Boot and load."""
        self.say(Ready(self.pid, "stub", "STUB", None, 0.0))
        assert isinstance(self.hear(), Load)
        self.say(Loaded("Stub", 0.0))
        return self

    def draw(self, lease: Lease, seconds: float = 0.001) -> None:
        """The device is done with it; it is still to be saved."""
        self.say(Generated(lease.lease_id, seconds))

    def save(self, lease: Lease) -> None:
        Path(lease.partial_path).write_bytes(PICTURE)
        self.say(Done(lease.lease_id, len(PICTURE), "0" * 64, 0.0))

    def finish(self, lease: Lease, seconds: float = 0.001) -> None:
        self.draw(lease, seconds)
        self.save(lease)

    def leave_when_asked(self) -> None:
        """End at the poison pill, whenever that comes."""
        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        assert isinstance(self.hear(), Stop)
        self.die(0)


class StubStarter:
    """Starts stub workers; takes the place of `core.processes.starters`'s with `installed`."""

    ready = True

    def __init__(self) -> None:
        self.started: dict[str, list[StubWorker]] = {}

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> "StubStarter":
        starter = cls()
        monkeypatch.setattr("core.engine.worker_pool.starter_for", lambda *_, **__: starter)
        return starter

    def start(
        self, target: WorkerMain, arguments: Any, name: str, environment: Mapping[str, str]
    ) -> Any:
        worker = StubWorker(name, arguments)
        self.started.setdefault(name, []).append(worker)
        return worker

    def worker(self, name: str = "cpu0", incarnation: int = 1) -> StubWorker:
        """Once it is started."""
        started = self.started.setdefault(name, [])
        wait_until(lambda: len(started) >= incarnation, f"{name}'s start number {incarnation}")
        return started[incarnation - 1]


def submitted(
    executor: ThreadPoolExecutor, generator: MultiGPUImageGenerator, n: int
) -> "Future[list[Result]]":
    """A batch of `n` tasks, on its way."""
    tasks = [{"prompt": f"{i}", "output_path": f"{i}.png"} for i in range(n)]
    return executor.submit(generator.generate_batch, tasks)


def finish_all(worker: StubWorker, count: int) -> None:
    """Play it to the end of a batch of which it gets `count` tasks more."""
    for _ in range(count):
        worker.finish(worker.hear_lease())
    worker.leave_when_asked()
