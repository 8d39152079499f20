"""The workers of one node: a local backend, and what is told to and by it. No Ray in here.

Orders and reports are numbered. A repeated order is dropped, as a sender that got no answer cannot
know whether it came; a report is kept until its receiver has named its number.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cluster.node_memory import NodeMemory
from cluster.node_models import NodeModels
from cluster.protocol import (
    AskProgress,
    AskSilence,
    FetchModel,
    Forget,
    FromAgent,
    HasRead,
    Kill,
    Order,
    Prepare,
    Progress,
    Send,
    Silent,
    Start,
    StopFetch,
    Told,
)
from core.devices.device import Device
from core.engine.backend import Died, HungUp, Said, WorkerBackend
from core.messages import LoadFailed, StepsDone, ToWorker, encode
from core.worker_spec import WorkerSpec

MOST_AT_ONCE = 500  # reports in one answer
PIPE_BYTES = 48 * 1024  # of messages that a worker may have unread, less than any pipe holds
PAGE = 4096  # bytes of a pipe that a message takes at least
SOON = 0.01  # seconds until a worker that had not read, or could not start, is looked at again
LINGER = 0.05  # seconds for which what can wait does so: to tell each thing by itself costs 3 ms
IDLE = 60.0  # seconds between looks when nothing is to come


@dataclass
class _Worker:
    """What the node knows of a worker beside its own backend.

    Attributes:
        masks: of its devices, as CUDA calls them.
        start: still to be done; None once it is started.
        backlog: messages that it has not been sent, because it does not read.
        unread: bytes that it may still have to read.
        sent: messages that it was sent.
        told: of these, main knows so many as read.
        questions: of main, whether it is silent.
        given_at: when it was given something last, or started.
    """

    life: int
    spec: WorkerSpec
    masks: tuple[str, ...]
    start: Start | None
    backlog: deque[ToWorker] = field(default_factory=deque)
    unread: int = 0
    sent: int = 0
    told: int = 0
    questions: list[int] = field(default_factory=list)
    given_at: float = 0.0

    @property
    def had(self) -> float:
        """Seconds for which it has had all that it was sent; 0 if it has not yet."""
        waits = self.start is not None or self.backlog
        return 0.0 if waits else time.monotonic() - self.given_at


class NodeWorkers:
    """Holds the node's backend in a thread of its own, which outlives every worker.

    Args:
        make_backend: called in that thread.
        devices: of the node that this run has.
        models: hub models on this node.
        memory: of its GPUs.
    """

    def __init__(
        self,
        make_backend: Callable[[], WorkerBackend],
        devices: Sequence[Device],
        models: NodeModels,
        memory: NodeMemory | None = None,
    ) -> None:
        self._memory = memory or NodeMemory()
        self._devices = devices
        self._models = models
        self._orders: deque[Order] = deque()
        self._next_order = 1
        self._lock = threading.Condition()  # guards the three that follow
        self._reports: deque[tuple[int, FromAgent]] = deque()
        self._last_report = 0
        self._last_for_a_decision = 0  # the number of the last that should not wait for others
        self._workers: dict[str, _Worker] = {}
        self._closing = False
        self._defect: BaseException | None = None
        started = threading.Event()
        self._make_backend = make_backend
        self._backend: WorkerBackend
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="node-workers", daemon=True
        )
        self._thread.start()
        started.wait()
        models.use(self.tell, self._backend.wake)

    # -- called from other threads ---------------------------------------------------------------

    def order(self, first: int, orders: Sequence[Order]) -> None:
        """Take orders; those that came before are dropped. For one thread at a time.

        Args:
            first: number of the first of these orders. They are numbered from 1, without a gap.

        Raises:
            BaseException: that has ended the thread that holds the workers.
        """
        if self._defect is not None:
            raise self._defect
        new = orders[self._next_order - first :]
        self._next_order += len(new)
        self._orders.extend(new)
        self._backend.wake()

    def reports(self, after: int, timeout: float) -> list[tuple[int, FromAgent]]:
        """Wait for reports beyond a number, of which those up to it are forgotten.

        Args:
            timeout: seconds to wait for the first; then there are none.

        Raises:
            BaseException: as `order`, which leaves the node without use.
        """
        with self._lock:
            while self._reports and self._reports[0][0] <= after:
                self._reports.popleft()
            self._lock.wait_for(lambda: self._reports or self._defect, timeout)
            self._lock.wait_for(lambda: self._last_for_a_decision > after or self._defect, LINGER)
            if self._defect is not None:
                raise self._defect
            return [self._reports[i] for i in range(min(MOST_AT_ONCE, len(self._reports)))]

    def tell(self, report: FromAgent) -> None:
        """Report something."""
        with self._lock:
            self._last_report += 1
            self._reports.append((self._last_report, report))
            if not _can_wait(report):
                self._last_for_a_decision = self._last_report
            self._lock.notify()

    def close(self) -> None:
        """Kill all workers and end."""
        self._closing = True
        self._backend.wake()
        self._thread.join()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self, started: threading.Event) -> None:
        self._backend = self._make_backend()
        started.set()
        try:
            self._work()
        except BaseException as error:
            with self._lock:
                self._defect = error
                self._lock.notify()
        self._models.close()
        self._backend.close()

    def _work(self) -> None:
        while not self._closing:
            while self._orders:
                self._obey(self._orders.popleft())
            waits = [self._look_at(slot, worker) for slot, worker in list(self._workers.items())]
            asked = any(worker.questions for worker in self._workers.values())
            for report in self._backend.poll(0.0 if asked else SOON if any(waits) else IDLE):
                self._hear(report)
            self._answer()

    def _obey(self, order: Order) -> None:
        match order:
            case Prepare(spec):
                self._backend.prepare(self._own(spec, self._devices[0]))
            case FetchModel():
                self._models.fetch(order.fetch, self._own(order.spec, self._devices[0]))
            case StopFetch(fetch):
                self._models.stop(fetch)
            case Start():
                spec = self._own(order.spec, order.device)
                masks = tuple(order.device.mask.split(","))
                self._workers[order.slot] = _Worker(order.life, spec, masks, order)
            case _:
                self._obey_about(order, self._workers.get(order.slot))

    def _obey_about(
        self, order: Send | Kill | Forget | AskSilence | AskProgress, worker: _Worker | None
    ) -> None:
        slot = order.slot
        if worker is None or worker.life != order.life:
            return  # main will hear of its death
        match order:
            case Send(message=message):
                worker.backlog.append(message)
            case Kill() if worker.start is not None:
                self._died(slot, worker, Died(slot, "it was not started yet", by_sigkill=True))
            case Kill():
                self._backend.kill(slot)
            case Forget():
                self._backend.forget(slot)
                del self._workers[slot]
            case AskSilence(question=question):
                worker.questions.append(question)
            case AskProgress():
                seen = self._backend.progress(slot), self._models.progress(worker.spec)
                self.tell(Progress(slot, worker.life, seen))

    def _own(self, spec: WorkerSpec, device: Device) -> WorkerSpec:
        """What main tells a worker, as far as it depends on the machine."""
        workers = len(self._devices) // device.count * device.sharers
        threads = max(1, len(os.sched_getaffinity(0)) // max(1, workers))
        return replace(spec, parent_pid=os.getpid(), threads=threads)

    def _look_at(self, slot: str, worker: _Worker) -> bool:
        """Start or send what waits; returns whether to look again soon."""
        if worker.start is not None and self._backend.ready:
            if not self._has_memory(slot, worker.start.device):
                return True
            self._start(slot, worker, worker.start)
        if worker.start is not None or slot not in self._workers:
            return False  # the backend wakes us when it is ready
        read_all = self._backend.reads_along(slot)
        if read_all:
            worker.unread = 0
        if read_all and worker.told < worker.sent:
            worker.told = worker.sent
            self.tell(HasRead(slot, worker.life, worker.told))
        while worker.backlog and worker.unread < PIPE_BYTES:
            message = self._models.placed(worker.backlog[0], worker.spec)
            if message is None:  # its files are on their way, and wake us
                return worker.told < worker.sent
            worker.backlog.popleft()
            if isinstance(message, LoadFailed):
                self.tell(Told(slot, worker.life, Said(slot, message)))
                continue
            worker.unread += max(PAGE, len(encode(message)))
            worker.sent += 1
            worker.given_at = time.monotonic()
            self._backend.send(slot, message)
        return bool(worker.backlog) or worker.told < worker.sent

    def _has_memory(self, slot: str, device: Device) -> bool:
        others = [worker for name, worker in self._workers.items() if name != slot]
        masks = [mask for worker in others if not worker.start for mask in worker.masks]
        return self._memory.is_free(device, bool({*device.mask.split(",")} & {*masks}))

    def _start(self, slot: str, worker: _Worker, start: Start) -> None:
        try:
            self._backend.start(slot, start.device, worker.spec)
        except Exception as error:  # out of processes, threads, memory or file descriptors
            if self._backend.ready:
                how = f"could not be started: {error}"
                self._died(slot, worker, Died(slot, how, blameless=True))
            return  # else what it depends on is being started again
        worker.start = None
        worker.given_at = time.monotonic()

    def _hear(self, report: object) -> None:
        assert isinstance(report, Said | HungUp | Died)
        worker = self._workers.get(report.slot)
        if worker is None:
            return
        if isinstance(report, Died):
            self._died(report.slot, worker, report)
        else:
            self.tell(Told(report.slot, worker.life, report))

    def _died(self, slot: str, worker: _Worker, death: Died) -> None:
        self.tell(Told(slot, worker.life, death))
        del self._workers[slot]

    def _answer(self) -> None:
        for slot, worker in self._workers.items():
            if worker.questions and not self._backend.has_word(slot):
                for question in worker.questions:
                    self.tell(Silent(slot, worker.life, question, worker.had))
                worker.questions.clear()


def _can_wait(report: FromAgent) -> bool:
    """It may be told a moment later, together with others: no device runs dry for it."""
    if isinstance(report, Told):
        return isinstance(report.report, Said) and isinstance(report.report.message, StepsDone)
    return isinstance(report, HasRead | Progress)
