"""What a driver does for one task: the whole engine at work, on devices that are arithmetic.

Nothing of the driver is copied: `core.engine.engine.Engine` with its scheduler, dispatcher,
supervisor and rules of retry, and `core.store`'s recorder, ledger and table. Left out are the
workers, the pictures' files (none is written, so none gets its name) and the reading of the input.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from loguru import logger

from benchmarks.scaling.devices import SimulatedDevices
from benchmarks.scaling.virtual_time import START, VirtualTime
from benchmarks.scaling.workload import Case
from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.devices.worker_specs import spec_for
from core.engine.engine import Engine
from core.engine.job import Job
from core.engine.recorder import Attempt, Ending, Refusal, Then
from core.engine.served_model import ServedModel
from core.intake.remaining import AT_ONCE
from core.messages import Done
from core.settings import load_settings
from core.store.folder_recorder import FolderRecorder
from core.store.ledger import Ledger
from core.store.ledger_entry import Recordable, entry_for
from core.store.outputs import OutputPath, OutputRoot
from core.store.replaced import Replaced
from core.store.results_table import ResultsTable
from core.tasks import Result, Status

ROLE = "generate"


@dataclass(frozen=True)
class DriverOutcome:
    """What one run cost its driver, in seconds of CPU.

    Attributes:
        seconds: of a task, on average.
        engine, record: of the engine's thread and of the recorder's.
        feed: of the engine's thread, for making tasks and recording that they are to be done.
        makespan: simulated seconds, in which the engine's thread took its time, too.
        over_bound: those over the seconds of all tasks, shared out equally.
    """

    gpus: int
    seconds: float
    tasks: int
    engine: float
    record: float
    feed: float
    makespan: float
    over_bound: float

    @property
    def busy(self) -> float:
        """The part of the time in which the engine's thread had something to do."""
        return (self.engine + self.feed) / self.makespan

    @property
    def us_per_task(self) -> float:
        """Microseconds of CPU for a task."""
        return 1e6 * (self.engine + self.record + self.feed) / self.tasks


class _NoFiles(Replaced):
    """Gives no file its name: there is none."""

    def __init__(self) -> None:
        """Keep nothing."""

    def publish(
        self, partial: str | Path, output: OutputPath, size: int, sync: bool = True
    ) -> None:
        """Do nothing."""


class _Recorder:
    """The folder's recorder for one job, which says whether something is still to be written."""

    def __init__(self, recorder: FolderRecorder, folder: Path, batch: int) -> None:
        self.folder, self.batch = folder, batch
        self._recorder = recorder
        self._asked = 0  # and not answered
        self._changed = threading.Condition()
        self.partial_path: Callable[[Recordable, str], str] = recorder.partial_path
        self.end_lease_alone = recorder.end_lease_alone
        self.fail = recorder.fail
        self.discard = recorder.discard

    def begin(self, attempt: Attempt, then: Then) -> None:
        self._recorder.begin(attempt, self._counted(then))

    def keep(self, attempt: Attempt, done: Done, then: Then) -> None:
        self._recorder.keep(attempt, done, self._counted(then))

    def end(self, attempt: Attempt, ending: Ending, then: Then) -> None:
        self._recorder.end(attempt, ending, self._counted(then))

    def note(self, result: Result) -> None:
        """Do nothing: there is no table."""

    def finish(self, results: Sequence[Result], ended: Mapping[Status, int], then: Then) -> None:
        then(None)

    def settled(self) -> None:
        """Wait until everything that was asked for is answered."""
        with self._changed:
            self._changed.wait_for(lambda: not self._asked)

    def _counted(self, then: Then) -> Then:
        with self._changed:
            self._asked += 1

        def answered(refusal: Refusal | None) -> None:
            then(refusal)
            with self._changed:
                self._asked -= 1
                if not self._asked:
                    self._changed.notify_all()

        return answered


class DriverSimulation:
    """One case, from its first task to its last record. It takes the process's clock for good."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._clock = VirtualTime()
        self._ledger = Ledger.open(folder)
        self._table = ResultsTable(folder)
        self._records = FolderRecorder(self._ledger, OutputRoot(folder), self._table)
        batch = self._ledger.begin_batch([])
        self._records.begin_batch(batch, _NoFiles())
        self._table.begin(batch, [])
        self._recorder = _Recorder(self._records, folder, batch)
        self._folder = folder
        self._tasks = case.workload.admitted(folder)
        self._left = case.workload.tasks
        self._work = 0.0
        self._feed_cpu = 0.0
        poisoned = case.workload.is_poison
        self._devices = SimulatedDevices(
            self._clock,
            case.speeds,
            lambda name: poisoned(int(name.rpartition("_")[2])),
            self._recorder.settled,
            self._feed,
        )
        self._engine = self._make_engine()
        self._job: Job | None = None

    def run(self) -> DriverOutcome:
        """Play it through."""
        self._clock.install()
        self._job = self._engine.submit(
            [], self._recorder, sealed=False, promised=self._left, told=lambda _: None
        )
        self._engine.start()
        self._job.wait()
        tasks = self._job.progress.total
        self._engine.stop()
        record_cpu: list[float] = []
        self._records.call(lambda: record_cpu.append(time.thread_time()), lambda _: None)
        self._records.close()
        self._ledger.close()
        assert tasks == self._case.workload.tasks
        makespan = self._devices.tally.last_picture - START - self._case.speeds.start
        work = self._work * self._case.speeds.megapixel
        return DriverOutcome(
            self._case.gpus,
            work / tasks,
            tasks,
            self._devices.thread_cpu - self._devices.cpu - self._feed_cpu,
            record_cpu[0],
            self._feed_cpu,
            makespan,
            makespan * self._case.gpus / work,
        )

    def _make_engine(self) -> Engine:
        settings = load_settings({"model": "simulated"})
        model = ModelChoice("simulated", "simulated", "it is simulated")
        devices = [Device("cpu", number, "") for number in range(self._case.gpus)]
        served = ServedModel(
            ROLE,
            devices,
            lambda device: spec_for(device, ROLE, model, settings, 1),
            settings.supervision,
            self._case.gpus,
        )
        return Engine(devices, [served], self._devices, settings.supervision, settings.scheduling)

    def _feed(self) -> bool:
        """Give the engine the next tasks, as `core.feeding` does for a large input."""
        job = self._job
        if job is None or not self._left or job.waiting >= self._case.most_waiting:
            return False
        began = time.thread_time()
        some = list(islice(self._tasks, AT_ONCE))
        self._ledger.add_to_batch(self._recorder.batch, [entry_for(one, "pending") for one in some])
        self._work += sum(one.work for one in some)
        self._left -= len(some)
        self._engine.extend(job, some)
        if not self._left:
            self._engine.seal(job)
        self._feed_cpu += time.thread_time() - began
        return True


def drive(case: Case, base: str | None = None) -> DriverOutcome:
    """Simulate one case in this process, which is good for nothing else afterwards.

    Args:
        base: where the record is written meanwhile; by default where temporary files are.
    """
    logger.remove()
    with TemporaryDirectory(prefix="bench-", dir=base) as name:
        return DriverSimulation(case, Path(name)).run()
