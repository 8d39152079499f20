"""A discrete-event simulation of one run: devices are arithmetic, what decides is the engine's own.

Not copied but used as they are: the scheduler, the table of jobs, the fate of tasks and of their
attempts, the rules of retry and restart, and the ledger in a file. Left out are worker processes,
files of pictures, and the turns of the engine's loop over all of its slots, which
`benchmarks.scaling.driver` measures.
"""

import heapq
import random
import resource
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from loguru import logger

from benchmarks.scaling.record import Record
from benchmarks.scaling.workload import Case
from core.engine.attempts import WorkerLoss
from core.engine.job import Job
from core.engine.job_run import JobRun
from core.engine.job_table import JobTable
from core.engine.pending import Peer, Worker
from core.engine.restart_policy import Deaths
from core.engine.scheduler import Scheduler
from core.engine.tail import in_tail
from core.engine.task_state import ActiveAttempt
from core.events import ignore
from core.intake.remaining import AT_ONCE
from core.messages import Done
from core.settings import load_settings
from core.store.ledger import FILE_NAME, Ledger
from core.store.ledger_entry import entry_for

ROLE = "generate"
COMMIT = 0.03  # seconds for which results gather for one commit, as the engine lets reports gather
PICTURE_BYTES = 1_400_000
SHA256 = "0" * 64
USED = {"model": "simulated", "width": 1024, "height": 1024, "num_inference_steps": 8}


@dataclass(frozen=True)
class Outcome:
    """What came of it. Times of devices are simulated, times of the driver are CPU time.

    Attributes:
        ended: tasks by status.
        makespan: seconds from the moment when workers are ready to the last result.
        bound: seconds of all tasks, shared out by speed; loads of LoRAs and deaths not counted.
        work_lost: device seconds of tasks whose worker died before they were done.
        decision_us: microseconds of the scheduler for each task that it gave out.
        scheduling, recording: seconds of the driver.
        bookkeeping: seconds of the driver for everything else: making tasks, retries, results.
        rows: of the ledger, tasks and leases.
        memory: bytes of this process at its largest.
    """

    gpus: int
    tasks: int
    loras: int
    ended: dict[str, int]
    makespan: float
    bound: float
    work_lost: float
    lora_loads: int
    deaths: int
    most_waited: int
    decision_us: float
    scheduling: float
    recording: float
    bookkeeping: float
    rows: int
    commits: int
    ledger_bytes: int
    memory: int

    @property
    def over_bound(self) -> float:
        return self.makespan / self.bound

    @property
    def rows_per_second(self) -> float:
        """Rows written in a second of the recorder's time; each lease and result changes two."""
        return 2 * self.rows / self.recording

    @property
    def us_per_task(self) -> float:
        """Microseconds of the driver for a task."""
        return 1e6 * (self.scheduling + self.recording + self.bookkeeping) / self.tasks


@dataclass(slots=True)
class _Gpu:
    """A slot and its worker."""

    name: str
    speed: float  # seconds for a megapixel
    loras: "OrderedDict[str, None]" = field(default_factory=OrderedDict)
    active: ActiveAttempt | None = None
    began: float = 0.0
    ends: float = 0.0
    life: int = 0  # which incarnation of its worker
    deaths: Deaths = field(default_factory=Deaths)


class Simulation:
    """One case, from its first task to its last record."""

    def __init__(self, case: Case, folder: Path) -> None:
        settings = load_settings({"model": "simulated"})
        self._case, self._rules = case, settings.supervision
        self._draw = random.Random(case.workload.seed)
        slow = round(case.speeds.slow * case.gpus)
        speed = case.speeds.megapixel
        self._gpus = [_Gpu(f"gpu{n}", speed * (1 + (n < slow))) for n in range(case.gpus)]
        self._names = frozenset(gpu.name for gpu in self._gpus)
        self._held: Counter[str] = Counter()  # LoRAs: by how many devices
        self._file = folder / FILE_NAME
        self._ledger = Ledger.open(folder)
        self._record = Record(self._ledger, folder)
        self._scheduler = Scheduler(settings.scheduling.max_passed_over)
        self._table = JobTable(self._scheduler)
        self._tasks = case.workload.admitted(folder)
        self._left = case.workload.tasks
        self._now = self._written_at = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._free = list(self._gpus)
        self._work = self._lost = 0.0
        self._loads = self._died = self._most_waited = 0
        self._seconds = {"scheduling": 0.0, "recording": 0.0}
        self._decisions = 0
        self._found_peers: tuple[tuple[float, int], tuple[Peer, ...]] = ((-1.0, 0), ())
        self._job = Job(1, lambda *_: None, lambda *_: None, told=lambda _: None)
        self._job.promise(self._left)
        self._run = JobRun(
            self._job,
            self._record,
            self._rules,
            ignore,
            queue=self._table.queue,
            withdraw=self._table.withdraw,
            in_turn=lambda call: call(),
            on_finished=self._table.end,
            on_storage_error=lambda *_: None,
            refusal=lambda _: None,
            share=("job 1", 0),
        )
        self._table.add(self._run)

    def run(self) -> Outcome:
        """Play it through."""
        began = time.process_time()
        for gpu in self._gpus:
            self._plan_death(gpu)
        while not self._job.finished:
            self._feed()
            self._give()
            self._step()
        took = time.process_time() - began
        makespan = self._now
        self._ledger.close()
        case, done = self._case, self._job.progress
        speeds = sum(1 / gpu.speed for gpu in self._gpus)
        return Outcome(
            gpus=case.gpus,
            tasks=done.total,
            loras=case.workload.loras,
            ended={str(status): number for status, number in done.ended.items()},
            makespan=makespan,
            bound=self._work / speeds,
            work_lost=self._lost,
            lora_loads=self._loads,
            deaths=self._died,
            most_waited=self._most_waited,
            decision_us=1e6 * self._seconds["scheduling"] / self._decisions,
            scheduling=self._seconds["scheduling"],
            recording=self._seconds["recording"],
            bookkeeping=took - sum(self._seconds.values()),
            rows=self._record.rows,
            commits=self._record.commits,
            ledger_bytes=self._file.stat().st_size,
            memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    # -- the driver --------------------------------------------------------------

    def _feed(self) -> None:
        """Have the next tasks wait, as `core.feeding` does it."""
        while self._left and self._job.waiting < self._case.most_waiting:
            some = list(islice(self._tasks, AT_ONCE))
            began = time.process_time()
            self._record.add([entry_for(one, "pending") for one in some])
            self._seconds["recording"] += time.process_time() - began
            self._work += sum(one.work for one in some)
            self._left -= len(some)
            self._job.admit(len(some))
            self._run.add(some)
            if not self._left:
                self._run.seal()
        self._most_waited = max(self._most_waited, len(self._scheduler))

    def _give(self) -> None:
        """Give free devices what they should have now."""
        idle: list[_Gpu] = []
        while self._free and self._scheduler.waiting(ROLE):
            gpu = self._free.pop()
            worker = self._worker(gpu)
            began = time.process_time()
            pending = self._scheduler.take(worker)
            self._seconds["scheduling"] += time.process_time() - began
            if pending is None:
                idle.append(gpu)
                continue
            self._decisions += 1
            _, task = self._table.find(pending)
            gpu.active = self._run.attempts.begin(task, gpu.name, lambda *_: None)
            self._begin(gpu)
        self._free += idle

    def _worker(self, gpu: _Gpu) -> Worker:
        workers = len(self._gpus)
        has_peers = in_tail(self._scheduler.waiting(ROLE), workers)
        held = frozenset(gpu.loras)
        elsewhere = frozenset(x for x, n in self._held.items() if n > (x in held))
        return Worker(
            gpu.name,
            held,
            others=self._names,
            loras_elsewhere=elsewhere,
            peers=self._peers() if has_peers else (),
            load_seconds=self._case.speeds.lora if self._loads else 0.0,
            model=ROLE,
        )

    def _peers(self) -> tuple[Peer, ...]:
        """All devices, as the engine sees them; the same ones until something changes."""
        moment = (self._now, self._decisions)
        if self._found_peers[0] != moment:
            self._found_peers = (moment, tuple(map(self._peer, self._gpus)))
        return self._found_peers[1]

    def _peer(self, gpu: _Gpu) -> Peer:
        free_in = max(0.0, gpu.ends - self._now)
        return Peer(gpu.name, free_in, gpu.speed, frozenset(gpu.loras))

    def _write(self) -> None:
        began = time.process_time()
        self._record.write()
        self._seconds["recording"] += time.process_time() - began
        self._written_at = self._now

    # -- the devices -------------------------------------------------------------

    def _later(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._order), happens))

    def _step(self) -> None:
        """Go on to what happens next."""
        at = self._events[0][0] if self._events else float("inf")
        if self._record.is_due or at > self._written_at + COMMIT:
            waiting = self._scheduler.waiting(ROLE)
            self._write()
            if self._job.finished or self._scheduler.waiting(ROLE) > waiting:
                return  # a task is to be tried again
        if not self._events:  # all that was done is being recorded
            return
        self._now, _, happens = heapq.heappop(self._events)
        happens()

    def _begin(self, gpu: _Gpu) -> None:
        active = gpu.active
        assert active is not None
        speeds, admitted = self._case.speeds, active.admitted
        seconds = admitted.work * gpu.speed
        seconds *= self._draw.uniform(1 - speeds.jitter, 1 + speeds.jitter)
        for lora in admitted.loads - gpu.loras.keys():
            seconds += speeds.lora
            self._loads += 1
            self._let_go_of_loras(gpu)
            gpu.loras[lora] = None
            self._held[lora] += 1
        gpu.began, gpu.ends = self._now, self._now + seconds
        life = gpu.life
        if self._case.workload.is_poison(admitted.position):
            self._later(seconds / 2, lambda: self._die(gpu, life))
        else:
            self._later(seconds, lambda: self._drawn(gpu, life, seconds))

    def _drawn(self, gpu: _Gpu, life: int, seconds: float) -> None:
        active = gpu.active
        if gpu.life != life or active is None:
            return
        gpu.active = None
        gpu.deaths.after_task()
        done = Done(active.lease_id, PICTURE_BYTES, SHA256, seconds, USED)
        self._run.attempts.done(active, done, lambda: None)
        self._free.append(gpu)

    def _plan_death(self, gpu: _Gpu) -> None:
        if self._case.speeds.between_deaths:
            life = gpu.life
            seconds = self._draw.expovariate(1 / self._case.speeds.between_deaths)
            self._later(seconds, lambda: self._die(gpu, life))

    def _die(self, gpu: _Gpu, life: int) -> None:
        if gpu.life != life:
            return
        gpu.life += 1
        self._died += 1
        self._let_go_of_loras(gpu)
        if gpu.active is not None:
            self._lost += self._now - gpu.began
            loss = WorkerLoss(f"{gpu.name}: its process was ended by SIGSEGV")
            self._run.attempts.lost(gpu.active, loss, blamed=True)
            gpu.active = None
        else:
            self._free.remove(gpu)
        wait = gpu.deaths.after_death(self._rules, is_last=True) or 0.0
        self._later(wait + self._case.speeds.start, lambda: self._start(gpu))

    def _start(self, gpu: _Gpu) -> None:
        self._plan_death(gpu)
        self._free.append(gpu)

    def _let_go_of_loras(self, gpu: _Gpu) -> None:
        for lora in gpu.loras:
            self._held[lora] -= 1
            if not self._held[lora]:
                del self._held[lora]
        gpu.loras.clear()


def simulate(case: Case, base: str | None = None) -> Outcome:
    """Simulate one case.

    Args:
        base: where the ledger is written meanwhile; by default where temporary files are.
    """
    logger.remove()
    with TemporaryDirectory(prefix="bench-", dir=base) as name:
        return Simulation(case, Path(name)).run()
