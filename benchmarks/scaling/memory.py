"""What of a task stays in the memory of a driver when the task has ended, by the whole program.

A generator with its session, intake, engine, recorder and tables, as the commands use it; workers
take no time, and write one byte for each picture.
"""

import os
import resource
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loguru import logger

from core import feeding
from core.devices.device import Device
from core.engine.backend import Died, Report, Said
from core.engine.fetch import Fetch
from core.events import Listener
from core.messages import Done, Generated, Lease, Load, Loaded, Ready, Stop, ToWorker
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import Result
from core.worker_spec import WorkerSpec

WAITING = 5_000  # tasks in memory, so that what grows is what has ended
SHA256 = "0" * 64
USED = {"model": "simulated", "width": 1024, "height": 1024, "num_inference_steps": 8}


@dataclass(frozen=True)
class MemoryOutcome:
    """Memory of a driver in the course of one run.

    Attributes:
        ended: numbers of tasks that had ended.
        resident: bytes of the process then.
        most: of the process, at its largest, with the tables' writing at the end.
        seconds_cpu: of the whole run.
    """

    ended: list[int]
    resident: list[int]
    most: int
    seconds_cpu: float

    @property
    def each(self) -> list[float]:
        """Bytes that an ended task left, between two looks."""
        looks = list(zip(self.ended, self.resident, strict=True))
        return [
            (after - before) / (more - less) for (less, before), (more, after) in pairwise(looks)
        ]


class InstantWorkers:
    """A `WorkerBackend` whose workers are done with a task when they are sent it."""

    ready = True

    def __init__(self) -> None:
        self._there: set[str] = set()
        self._reports: deque[Report] = deque()
        self._awake = threading.Event()

    def prepare(self, spec: WorkerSpec) -> None:
        """Nothing needs to be made ready."""

    def fetch(self, spec: WorkerSpec, listener: Listener) -> Fetch | None:
        return None

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        self._there.add(slot)
        self._say(slot, Ready(0, "simulated GPU", "GPU-0", None, 0.0))

    def send(self, slot: str, message: ToWorker) -> bool:
        if slot not in self._there:
            return False
        if isinstance(message, Lease):
            with open(message.partial_path, "wb") as stream:
                stream.write(b"x")
            self._say(slot, Generated(message.lease_id, 0.001, 0.0, 0, 0, []))
            self._say(slot, Done(message.lease_id, 1, SHA256, 0.001, USED))
        elif isinstance(message, Load):
            self._say(slot, Loaded("Simulated", 0.0))
        elif isinstance(message, Stop):
            self._gone(slot)
        return True

    def _say(self, slot: str, message: Any) -> None:
        self._reports.append(Said(slot, message))

    def _gone(self, slot: str) -> None:
        if slot in self._there:
            self._there.discard(slot)
            self._reports.append(Died(slot, "its process ended with exit code 0"))

    def reads_along(self, slot: str) -> bool:
        return True

    def is_gone(self, slot: str) -> bool:
        return slot not in self._there

    def has_word(self, slot: str) -> bool:
        return bool(self._reports)

    def progress(self, slot: str) -> object:
        return object()

    def kill(self, slot: str) -> None:
        self._gone(slot)

    def forget(self, slot: str) -> None:
        self._there.discard(slot)

    def poll(self, timeout: float) -> list[Report]:
        if not self._reports:
            self._awake.wait(timeout)
        self._awake.clear()
        reports = list(self._reports)
        self._reports.clear()
        return reports

    def wake(self) -> None:
        self._awake.set()

    def close(self) -> None:
        self._there.clear()


class _Prompts:
    """Inputs that are made as they are read."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self._count):
            yield {
                "prompt": f"house number {number} by the river, in the evening, oil on canvas",
                "output_path": f"{number // 10_000:04d}/{number:08d}.png",
            }


def measure(tasks: int, looks: list[int], gpus: int, base: str | None = None) -> MemoryOutcome:
    """Run so many tasks, and look at the memory of this process when some of them have ended.

    Args:
        looks: numbers of ended tasks.
        base: where the output folder is made meanwhile; by default where temporary files are.
    """
    logger.remove()
    feeding.MOST_WAITING = WAITING
    ended, resident = 0, []

    def told(result: Result) -> None:
        nonlocal ended
        assert result.success, result.error
        ended += 1
        if ended in looks:
            resident.append(_resident())

    with TemporaryDirectory(prefix="bench-", dir=base) as name:
        settings = {"model": "simulated", "device": "cpu"}
        generator = MultiGPUImageGenerator(
            gpus, config=settings, output_dir=Path(name) / "out", backend=InstantWorkers()
        )
        with generator:
            generator.run(generator.prepare(_Prompts(tasks), []), told)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    assert ended == tasks
    return MemoryOutcome(looks, resident, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
