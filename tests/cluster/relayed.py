"""A cluster without Ray: nodes in threads of this process, behind main's side of the protocol."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cluster.backend import ClusterBackend
from cluster.courier import Courier
from cluster.link import Link
from cluster.node_files import NodeFiles, Wanted
from cluster.node_models import NodeModels
from cluster.node_workers import NodeWorkers
from cluster.protocol import (
    Connect,
    Connected,
    For,
    From,
    FromBridge,
    Node,
    NodeJoined,
    NodeLeaves,
    NodeLost,
    Order,
)
from core.devices.device import Device
from core.engine.backend import WorkerBackend
from core.settings import load_settings
from core.worker_spec import WorkerSpec
from tests.conftest import PATIENCE, simulated
from tests.inline_backend import InlineBackend

POLL = 0.05  # seconds
SETTINGS = load_settings(simulated())


class PlayedBridge:
    """Bridge and nodes; each order is sent twice, as where its answer was lost.

    Args:
        make_backend: of a node.
        files: of all nodes, where these do not see main's.
        each: devices of a node.
        kind: of main's side.
        ray: settings of that section.

    Attributes:
        names: nodes that are there when a bridge is started.
        starts: how often one was.
        cannot_start: errors of the next tries to start one.
    """

    connection: Connection

    def __init__(
        self,
        make_backend: Callable[[], WorkerBackend],
        nodes: list[str],
        files: NodeFiles | None = None,
        each: int = 2,
        kind: type[ClusterBackend] | None = None,
        **ray: Any,
    ) -> None:
        self.starts = 0
        self.cannot_start: list[Exception] = []
        self._make_backend = make_backend
        self._files = files
        self._couriers: dict[str, Courier] = {}
        self._nodes: dict[str, NodeWorkers] = {}
        self._orders: dict[str, int] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.names, self._each = nodes, each
        rules = SETTINGS.ray.model_copy(update={"fence_timeout": PATIENCE, **ray})
        connect = Connect(
            rules, SETTINGS.supervision, SETTINGS.workers.start_method, "cpu", None, {}, "run"
        )
        self.backend = (kind or OnNodes)(self._start, connect)
        answer = self.backend.connected(PATIENCE)
        assert isinstance(answer, Connected)

    def _start(self) -> "PlayedBridge":
        """Begin anew, as a bridge that is started does."""
        if self.cannot_start:
            raise self.cannot_start.pop(0)
        self._over.clear()
        self.connection, theirs = Pipe()
        link = Link(theirs, self._receive, lambda: self._close(link))
        self._link = link
        link.start()
        self.starts += 1
        return self

    def _receive(self, message: Any) -> None:
        if isinstance(message, Connect):
            self._link.send(Connected(tuple(map(self._node, self.names)), "played", "played"))
        elif isinstance(message, For) and (node := self._nodes.get(message.node)) is not None:
            courier = self._couriers.get(message.node)
            if courier is None:
                self._order(node, message.node, message.order)
            else:
                courier.order(message.order)

    def _order(self, node: NodeWorkers, name: str, order: Order) -> None:
        with self._lock:
            first = self._orders[name]
            self._orders[name] += 1
            for _ in range(2):
                node.order(first, [order])

    def _node(self, name: str) -> Node:
        devices = tuple(Device("cpu", i, "", node=name) for i in range(self._each))
        backend = self._make_backend()
        node = NodeWorkers(lambda: backend, devices, NodeModels(backend.fetch))
        self._nodes[name], self._orders[name] = node, 1
        if self._files is not None:
            self._couriers[name] = Courier(
                self._files,
                self._files.make_spool(),
                lambda order: self._order(node, name, order),
                lambda report: self.tell(From(name, report)),
            )
        thread = threading.Thread(target=self._pass_on, args=(name, node), daemon=True)
        self._threads.append(thread)
        thread.start()
        return Node(name, devices)

    def _pass_on(self, name: str, node: NodeWorkers) -> None:
        last = 0
        while self._nodes.get(name) is node:
            courier = self._couriers.get(name)
            for number, report in node.reports(last, POLL):
                if courier is None:
                    self.tell(From(name, report))
                else:
                    courier.report(report)
                last = number

    def tell(self, message: FromBridge) -> None:
        """Say something to main."""
        self._link.send(message)

    def joins(self, name: str) -> None:
        """A node comes."""
        self.tell(NodeJoined(self._node(name)))

    def leaves(self, name: str) -> None:
        """A node is to go."""
        self.tell(NodeLeaves(name, "it is being drained"))

    def loses(self, name: str) -> None:
        """A node goes, with its workers."""
        self._nodes.pop(name).close()
        self.tell(NodeLost(name, "the node is gone"))

    def dies(self) -> None:
        """End all nodes, and hang up without a word, as a bridge does that is killed."""
        self._end_nodes()
        self._link.hang_up()

    def kill(self) -> None:
        """End, as main wants it."""
        self.dies()

    def wait(self) -> None:
        """Wait for the end."""
        self._over.wait(PATIENCE)

    def describe_end(self) -> str:
        """How it ended."""
        return "by a test"

    def _close(self, link: Link) -> None:
        """End the nodes: main has hung up."""
        self._end_nodes()
        link.close()
        self._over.set()

    def _end_nodes(self) -> None:
        for name in list(self._nodes):
            with suppress(KeyError):  # from two threads
                self._nodes.pop(name).close()
        for thread in self._threads:
            thread.join()


class OnNodes(ClusterBackend):
    """Starts workers of devices that lie nowhere on the first node that is there."""

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        if not device.node:
            device = replace(device, node=self._nodes.names[0])
        super().start(slot, device, spec)


class Blind(NodeFiles):
    """Files of a node that sees nothing of main's.

    Attributes:
        came: bytes that were received.
    """

    came = 0

    def find(self, wanted: Wanted) -> str | None:
        elsewhere = replace(wanted, path=f"/nowhere/{Path(wanted.path).name}")
        return super().find(elsewhere)

    def receive(self, coming: str, name: str, offset: int, data: bytes) -> None:
        super().receive(coming, name, offset, data)
        super().receive(coming, name, offset, data)  # as where the answer was lost
        self.came += len(data)

    def sees(self, path: str, word: str) -> bool:
        return False


def relayed(make_backend: Callable[[], WorkerBackend]) -> ClusterBackend:
    """A backend on one played node."""
    return PlayedBridge(make_backend, ["a"]).backend


def beside_nodes() -> ClusterBackend:
    """A backend with a node that has no work: devices that lie nowhere are this machine's."""
    return PlayedBridge(InlineBackend, ["a"], kind=ClusterBackend).backend
