"""Thousands of simulated GPUs behind the engine's `WorkerBackend`, in virtual time.

A worker is a few numbers: what it was sent, which LoRAs it holds, when it is done. It draws, saves
what it has drawn beside the next task, and dies now and then. Time passes while the engine waits in
`poll`, and by as much CPU time as its thread takes between two calls: an engine that cannot keep up
lets its devices wait. The disk takes no time, nor does the simulation itself.
"""

import heapq
import itertools
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.scaling.virtual_time import VirtualTime
from benchmarks.scaling.workload import MEGAPIXEL, STEPS, Speeds
from core.devices.device import Device
from core.engine.backend import Died, Report, Said
from core.engine.fetch import Fetch
from core.events import Listener
from core.messages import Done, Generated, Lease, Load, Loaded, Ready, Stop, ToMain, ToWorker
from core.worker_spec import WorkerSpec

PICTURE_BYTES = 1_400_000
SHA256 = "0" * 64
BOOT = 0.2  # part of a start that comes before the load


@dataclass
class _Worker:
    """One incarnation of a slot's worker."""

    number: int
    resident: int
    loras: "OrderedDict[str, None]" = field(default_factory=OrderedDict)
    inbox: deque[Lease] = field(default_factory=deque)
    drawing: Lease | None = None
    began: float = 0.0
    free_since: float = 0.0
    saved_at: float = 0.0


@dataclass
class Tally:
    """What the devices did.

    Attributes:
        busy: device seconds of results that were made.
        work_lost: device seconds of tasks whose worker died before they were done.
        lora_loads: number of them.
        deaths: of workers.
    """

    busy: float = 0.0
    work_lost: float = 0.0
    lora_loads: int = 0
    deaths: int = 0
    first_picture: float | None = None
    last_picture: float = 0.0


class SimulatedDevices:
    """A `WorkerBackend` whose workers are arithmetic.

    Args:
        is_poison: whether a task, by its name, kills its worker.
        settled: waits until what was asked of the record is written.
        feed: gives the engine more tasks if it has room; False if it did not.

    Attributes:
        cpu: seconds that the simulation itself took.
        thread_cpu: of the engine's thread, the simulation included, at its end.
    """

    def __init__(
        self,
        clock: VirtualTime,
        speeds: Speeds,
        is_poison: Callable[[str], bool],
        settled: Callable[[], None],
        feed: Callable[[], bool],
        seed: int = 0,
    ) -> None:
        self.ready = True
        self.tally = Tally()
        self.cpu = self.thread_cpu = 0.0
        self._seen = 0.0  # of the thread's CPU, by the clock
        self._clock = clock
        self._speeds = speeds
        self._is_poison = is_poison
        self._settled = settled
        self._feed = feed
        self._draw = random.Random(seed)
        self._workers: dict[str, _Worker] = {}
        self._incarnations = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, str, int, Callable[[_Worker], None]]] = []
        self._reports: list[Report] = []
        self._awake = threading.Event()

    # -- as the engine sees it -----------------------------------------------

    def prepare(self, spec: WorkerSpec) -> None:
        """Nothing needs to be made ready."""

    def fetch(self, spec: WorkerSpec, listener: Listener) -> Fetch | None:
        return None

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        worker = _Worker(next(self._incarnations), spec.max_resident_loras)
        self._workers[slot] = worker
        self._later(BOOT * self._speeds.start, slot, worker, lambda w: self._say(slot, _READY))
        if self._speeds.between_deaths:
            life = self._draw.expovariate(1 / self._speeds.between_deaths)
            self._later(life, slot, worker, lambda w: self._die(slot, w))

    def send(self, slot: str, message: ToWorker) -> bool:
        worker = self._workers.get(slot)
        if worker is None:
            return False
        if isinstance(message, Lease):
            began = time.thread_time()
            worker.inbox.append(message)
            if worker.drawing is None:
                self._begin(slot, worker)
            self.cpu += time.thread_time() - began
        elif isinstance(message, Load):
            self._later(
                (1 - BOOT) * self._speeds.start, slot, worker, lambda w: self._loaded(slot, w)
            )
        elif isinstance(message, Stop):
            del self._workers[slot]
            self._reports.append(Died(slot, "its process ended with exit code 0"))
        return True

    def reads_along(self, slot: str) -> bool:
        return True

    def is_gone(self, slot: str) -> bool:
        return slot not in self._workers

    def has_word(self, slot: str) -> bool:
        return False

    def progress(self, slot: str) -> object:
        return self._clock.now

    def kill(self, slot: str) -> None:
        if self._workers.pop(slot, None) is not None:
            self._reports.append(Died(slot, "its process was ended by SIGKILL", by_sigkill=True))

    def forget(self, slot: str) -> None:
        self._workers.pop(slot, None)

    def poll(self, timeout: float) -> list[Report]:
        self._settled()
        fed = self._feed()
        began = time.thread_time()
        self._clock.now += max(0.0, began - self.cpu - self._seen)
        self._seen = began - self.cpu
        if fed or self._awake.is_set():
            self._awake.clear()
        elif not self._reports:
            end = self._clock.now + timeout
            first = self._events[0][0] if self._events else end
            self._clock.now = max(self._clock.now, min(end, first))
        reports = self._due()
        self.cpu += time.thread_time() - began
        return reports

    def wake(self) -> None:
        self._awake.set()

    def close(self) -> None:
        self._workers.clear()
        self.thread_cpu = time.thread_time()

    # -- what happens ----------------------------------------------------------

    def _due(self) -> list[Report]:
        while self._events and self._events[0][0] <= self._clock.now:
            _, _, slot, number, happens = heapq.heappop(self._events)
            worker = self._workers.get(slot)
            if worker is not None and worker.number == number:
                happens(worker)
        reports, self._reports = self._reports, []
        return reports

    def _later(
        self, seconds: float, slot: str, worker: _Worker, happens: Callable[[_Worker], None]
    ) -> None:
        event = (self._clock.now + seconds, next(self._order), slot, worker.number, happens)
        heapq.heappush(self._events, event)

    def _say(self, slot: str, message: ToMain) -> None:
        self._reports.append(Said(slot, message))

    def _loaded(self, slot: str, worker: _Worker) -> None:
        worker.free_since = self._clock.now
        self._say(slot, Loaded("Simulated", (1 - BOOT) * self._speeds.start))

    def _begin(self, slot: str, worker: _Worker) -> None:
        lease = worker.drawing = worker.inbox.popleft()
        loads, switches = self._load_loras(worker, lease)
        task = lease.task
        area = (getattr(task, "width", 0) or 0) * (getattr(task, "height", 0) or 0) / MEGAPIXEL
        jitter = self._draw.uniform(1 - self._speeds.jitter, 1 + self._speeds.jitter)
        seconds = area * self._speeds.megapixel * jitter + loads * self._speeds.lora
        worker.began = self._clock.now
        waited = worker.began - worker.free_since
        self.tally.lora_loads += loads
        if self._is_poison(lease.task_name):
            self._later(seconds / 2, slot, worker, lambda w: self._die(slot, w))
            return

        def drawn(worker: _Worker) -> None:
            now = worker.free_since = self._clock.now
            said = Generated(lease.lease_id, seconds, waited, loads, switches, [*worker.loras])
            self._say(slot, said)
            self.tally.busy += seconds
            worker.saved_at = max(now, worker.saved_at) + self._speeds.saving
            self._later(worker.saved_at - now, slot, worker, lambda w: self._saved(slot, lease))
            worker.drawing = None
            if worker.inbox:
                self._begin(slot, worker)

        self._later(seconds, slot, worker, drawn)

    def _load_loras(self, worker: _Worker, lease: Lease) -> tuple[int, int]:
        loads = switches = 0
        for lora in lease.loras:
            if lora.sha256 not in worker.loras:
                loads += 1
                switches += bool(worker.loras)
                while len(worker.loras) >= worker.resident:
                    worker.loras.popitem(last=False)
            worker.loras[lora.sha256] = None
            worker.loras.move_to_end(lora.sha256)
        return loads, switches

    def _saved(self, slot: str, lease: Lease) -> None:
        now = self.tally.last_picture = self._clock.now
        if self.tally.first_picture is None:
            self.tally.first_picture = now
        used = {"model": "simulated", "num_inference_steps": STEPS}
        self._say(slot, Done(lease.lease_id, PICTURE_BYTES, SHA256, 1.0, used))

    def _die(self, slot: str, worker: _Worker) -> None:
        self.tally.deaths += 1
        if worker.drawing is not None:
            self.tally.work_lost += self._clock.now - worker.began
        del self._workers[slot]
        self._reports.append(Died(slot, "its process was ended by SIGSEGV"))


_READY = Ready(0, "simulated GPU", "GPU-0", None, 5.0)
