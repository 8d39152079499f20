"""The workers of an engine on the nodes of a cluster, as main sees them.

What the engine asks is answered from what the agents last reported, so that no network delays it.
A device that lies on no node is main's own machine: its worker is there (`WorkersHere`).
"""

import os
import queue
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from time import monotonic

from cluster.lasting_link import BridgeEnd, LastingLink
from cluster.membership import CUT, Membership
from cluster.model_fetch import ClusterFetch
from cluster.probes import remove_probes
from cluster.protocol import (
    AskProgress,
    AskSilence,
    Connect,
    Connected,
    FetchModel,
    FetchNews,
    For,
    Forget,
    From,
    FromBridge,
    HasRead,
    Kill,
    Node,
    NodeJoined,
    NodeLeaves,
    NodeLost,
    NotUsed,
    Order,
    Prepare,
    Progress,
    Refused,
    Remark,
    Send,
    Silent,
    Start,
    StopFetch,
    Told,
)
from cluster.workers_here import WorkersHere
from core.details import log_line
from core.devices.device import Device
from core.devices.model_choice import is_hub_model
from core.engine.backend import Died, OfSlot, Report, Said
from core.errors import one_line
from core.events import Listener
from core.messages import Lease, ToWorker
from core.processes.local_backend import LocalBackend
from core.worker_spec import WorkerSpec

ANSWER = 0.005  # seconds of a poll at least while a worker is asked whether it is silent
LONGEST_ANSWER = 0.25  # the same where the answer is long in coming
FRESH = 1.0  # seconds for which the answer counts


@dataclass
class _Worker:
    """Main's side of a worker.

    Attributes:
        node: where it is; empty for this machine.
        sent, read: messages that it was sent, and that it is known to have read.
        said, heard: reports of it that have come, and that the engine was given.
        seen: its progress, as last reported.
        question: the last one whether it is silent.
        asked_at: when that was asked; None once it is answered.
        silent_at: when the last question was asked that is answered.
        sent_at: when it was sent something last, or started.
        late: seconds that this took to come to it, as its files had to travel.
        due_at: when somebody first wondered what it does with that; None before.
    """

    life: int
    node: str
    sent: int = 0
    read: int = 0
    said: int = 0
    heard: int = 0
    seen: object = None
    question: int = 0
    asked_at: float | None = None
    silent_at: float = 0.0
    sent_at: float = field(default_factory=monotonic)
    late: float = 0.0
    due_at: float | None = None
    dead: bool = False


class ClusterBackend:
    """Runs workers through a bridge to a cluster.

    Args:
        start: starts a bridge.
        connect: tells it what is wanted.

    Raises:
        InputError: no bridge can be started.
    """

    def __init__(self, start: Callable[[], BridgeEnd], connect: Connect) -> None:
        self._local_backend = partial(LocalBackend, connect.start_method, connect.supervision)
        self._here: WorkersHere | None = None  # made when the first worker needs it
        self._inbox: queue.SimpleQueue[tuple[int, Report] | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # guards what follows
        self._nodes = Membership(
            self._lock,
            connect.settings.node_timeout,
            lambda report: self._inbox.put((0, report)),
            self._added,
            self._gone,
        )
        self._standing: list[Order] = []  # which nodes that come later are told, too
        self._fetches: dict[int, ClusterFetch] = {}
        self._workers: dict[str, _Worker] = {}
        self._lives, self._questions, self._numbers = count(1), count(1), count(1)
        self._first: queue.SimpleQueue[Connected | Refused | None] = queue.SimpleQueue()
        self._asking: set[str] = set()  # slots that are asked whether they are silent
        self._folders: set[str] = set()  # where results go
        self._closed = False
        self._link = LastingLink(start, connect, self._receive, self._cut, self._over)
        self._link.open()

    def connected(self, timeout: float) -> Connected | Refused | None:
        """The bridge's first answer; None: it ended without one, or time (seconds) was up."""
        with suppress(queue.Empty):
            return self._first.get(timeout=timeout)
        return None

    def expect(self, names: Collection[str]) -> None:
        """Report how the nodes that are there differ from those that the engine knows by name."""
        self._nodes.expect(names)

    def does_without(self, reasons: Iterable[str]) -> None:
        """Log and report what is not used, once it is reported which nodes have joined."""
        self._nodes.does_without(reasons)

    # -- what the engine asks --------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self._nodes.ready

    def prepare(self, spec: WorkerSpec) -> None:
        self._tell_all(Prepare(replace(spec, name="", threads=1, parent_pid=0, memory_share=0)))

    def fetch(self, spec: WorkerSpec, listener: Listener) -> ClusterFetch | None:
        if not is_hub_model(spec.source):
            return None
        number = next(self._numbers)
        fetch = ClusterFetch(
            spec.source,
            listener,
            lambda: self._tell_all(FetchModel(number, spec)),
            lambda: self._stop_fetch(number),
        )
        with self._lock:
            self._fetches[number] = fetch
            fetch.nodes = {*self._nodes.names}
        return fetch

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        with self._lock:
            assert slot not in self._workers
            if not device.node:
                self._here = self._here or self._begin_here(device)
            elif not self._nodes.can_reach(device.node):
                raise OSError(f"{device.node} is not there")
            worker = self._workers[slot] = _Worker(next(self._lives), device.node)
        self._order(worker, Start(slot, worker.life, device, spec))

    def send(self, slot: str, message: ToWorker) -> bool:
        worker = self._workers.get(slot)
        if worker is None or worker.dead or self._cut_off(worker):
            return False
        if isinstance(message, Lease):
            self._folders.add(os.path.dirname(message.partial_path))
        worker.sent += 1
        worker.sent_at, worker.late, worker.due_at = monotonic(), 0.0, None
        self._order(worker, Send(slot, worker.life, message))
        return True

    def reads_along(self, slot: str) -> bool:
        worker = self._workers.get(slot)
        return worker is not None and not worker.dead and worker.read >= worker.sent

    def is_gone(self, slot: str) -> bool:
        worker = self._workers.get(slot)
        return worker is None or worker.dead or self._cut_off(worker)

    def has_word(self, slot: str) -> bool:
        """Also while it is not known: what was said may still be on its way from the node.

        And for as long as what it was sent was on its way to it: who asks counts from the sending.
        """
        worker = self._workers.get(slot)
        if worker is None:
            return False
        if worker.said > worker.heard or self._cut_off(worker):
            return True
        now = monotonic()
        if worker.due_at is None:
            worker.due_at = now
        if now - worker.silent_at < FRESH:
            return now < worker.due_at + worker.late
        if worker.asked_at is None and not worker.dead:
            worker.question, worker.asked_at = next(self._questions), now
            self._asking.add(slot)
            self._order(worker, AskSilence(slot, worker.life, worker.question))
        return True

    def progress(self, slot: str) -> object:
        """As last reported; to ask is to have it reported anew."""
        worker = self._workers.get(slot)
        if worker is None:
            return None
        self._order(worker, AskProgress(slot, worker.life))
        return worker.seen

    def kill(self, slot: str) -> None:
        with self._lock:
            worker = self._workers.get(slot)
            if worker is None or worker.dead:
                return
            if not self._cut_off(worker):
                self._order(worker, Kill(slot, worker.life))
            else:  # it is gone, or will be when the next bridge has connected
                self._report(worker, Died(slot, CUT, by_sigkill=True, blameless=True))

    def forget(self, slot: str) -> None:
        with self._lock:
            worker = self._workers.pop(slot, None)
        self._asking.discard(slot)
        if worker is not None:
            self._order(worker, Forget(slot, worker.life))

    def poll(self, timeout: float) -> list[Report]:
        if self._asking:
            now = monotonic()
            asked = [w.asked_at for s in self._asking if (w := self._workers.get(s)) and w.asked_at]
            oldest = now - min(asked, default=now)
            timeout = max(timeout, min(LONGEST_ANSWER, oldest), ANSWER)
        if self._nodes.is_cut:
            timeout = max(timeout, LONGEST_ANSWER)
        reports: list[Report] = []
        with suppress(queue.Empty):
            found = self._inbox.get(timeout=timeout) if timeout else self._inbox.get_nowait()
            self._take(found, reports)
            while True:
                self._take(self._inbox.get_nowait(), reports)
        return reports

    def wake(self) -> None:
        self._inbox.put(None)

    def close(self) -> None:
        if self._closed:
            return
        with self._lock:
            self._closed = True
        self._nodes.close()
        self._link.close()
        if self._here is not None:
            self._here.close()
        if self._nodes.lost_some:
            for folder in self._folders:
                remove_probes(folder)

    def _take(self, found: tuple[int, Report] | None, reports: list[Report]) -> None:
        """Add a report, unless it is of a worker that was forgotten."""
        if found is None:
            return
        life, report = found
        if not isinstance(report, OfSlot):
            reports.append(report)
            return
        worker = self._workers.get(report.slot)
        if worker is None or worker.life != life:
            return
        worker.heard += isinstance(report, Said | Died)  # a hang-up is no word
        reports.append(report)
        if isinstance(report, Died):
            self.forget(report.slot)

    def _order(self, worker: _Worker, order: Order) -> None:
        if worker.node:
            self._link.send(For(worker.node, order))
        elif self._here is not None:  # else it has broken down, and the worker's death is told
            self._here.order(order)

    def _cut_off(self, worker: _Worker) -> bool:
        """Whether nothing can be said to a worker until there is another bridge."""
        return self._nodes.is_cut and bool(worker.node)

    def _begin_here(self, device: Device) -> WorkersHere:
        return WorkersHere(
            device, self._local_backend, lambda report: self._hear("", report), self._here_broke
        )

    def _here_broke(self, error: BaseException) -> None:
        """What holds the workers of this machine has broken down; the next start makes another."""
        with self._lock:
            self._here = None
            for slot, worker in list(self._workers.items()):
                if not worker.node and not worker.dead:
                    how = f"what holds it has broken down ({error!r}); this is a defect"
                    self._report(worker, Died(slot, how, blameless=True))
                    self._asking.discard(slot)

    def _tell_all(self, order: Order) -> None:
        """Give an order to every node, also to those that come later."""
        with self._lock:
            if order in self._standing:
                return
            self._standing.append(order)
            self._send_all(order)

    def _send_all(self, order: Order) -> None:
        if self._nodes.is_cut:  # the next bridge's nodes are told what stands, each once
            return
        for name in self._nodes.names:
            self._link.send(For(name, order))

    def _stop_fetch(self, number: int) -> None:
        with self._lock:
            self._standing = [
                o for o in self._standing if not (isinstance(o, FetchModel) and o.fetch == number)
            ]
            self._fetches.pop(number, None)
            self._send_all(StopFetch(number))

    # -- threads of the link -----------------------------------------------------------------------

    def _receive(self, message: FromBridge) -> None:
        match message:
            case Connected() if self._nodes.is_cut:
                self._nodes.connected_again(message)
            case Connected(nodes):
                self._nodes.add(nodes)
                self._first.put(message)
            case NotUsed(why):
                self._nodes.does_without([why])
            case Refused():
                self._first.put(message)
            case NodeJoined(node):
                self._nodes.joined(node)
            case NodeLeaves(name, why):
                self._nodes.leaves(name, why)
            case NodeLost(name, why):
                self._nodes.lost(name, why)
            case From(node, report):
                self._hear(node, report)

    def _hear(self, node: str, report: object) -> None:
        match report:
            case FetchNews():
                with self._lock:
                    if (fetch := self._fetches.get(report.fetch)) is not None:
                        fetch.hear(node, report)
            case Remark(level, text):
                log_line(level, one_line(f"{node}: {text}"))
            case Told() | HasRead() | Silent() | Progress():
                worker = self._workers.get(report.slot)
                if worker is not None and worker.life == report.life:
                    self._hear_of(worker, report)

    def _hear_of(self, worker: _Worker, report: Told | HasRead | Silent | Progress) -> None:
        match report:
            case Told():
                self._report(worker, report.report)
            case HasRead(messages=messages):
                worker.read = messages
            case Progress(seen=seen):
                worker.seen = seen
            case Silent(question=question) if question == worker.question and worker.asked_at:
                worker.late = max(0.0, monotonic() - report.had - worker.sent_at)
                worker.silent_at, worker.asked_at = worker.asked_at, None
                self._asking.discard(report.slot)
                self.wake()

    def _report(self, worker: _Worker, report: Report) -> None:
        worker.said += isinstance(report, Said | Died)
        worker.dead = worker.dead or isinstance(report, Died)
        self._inbox.put((worker.life, report))

    def _added(self, name: str) -> None:
        for order in self._standing:
            self._link.send(For(name, order))
        for fetch in self._fetches.values():
            fetch.nodes.add(name)
        self.wake()

    def _gone(self, name: str, why: str) -> None:
        """A node's workers died without blame."""
        for slot, worker in list(self._workers.items()):
            if worker.node == name and not worker.dead:
                self._report(worker, Died(slot, f"{name} was lost: {why}", blameless=True))
                self._asking.discard(slot)
        for fetch in self._fetches.values():
            fetch.node_lost(name)

    def _cut(self, how: str) -> None:
        with self._lock:
            self._asking.clear()
            self._nodes.cut(how)
        self.wake()

    def _over(self, how: str) -> None:
        self._first.put(Refused(f"{CUT} {how}"))
        self._nodes.over(how)


def devices_of(nodes: Sequence[Node]) -> list[Device]:
    """All devices of some nodes, node by node."""
    return [device for node in nodes for device in node.devices]
