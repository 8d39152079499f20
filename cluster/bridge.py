"""The bridge: a process of its own that is Ray's driver, between main and the agents.

`python -c "from cluster.bridge import main; main(FD)"`, where FD is a socket to main. It ends when
main does, and everything that it started with it.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import uuid4

from cluster.protocol import (
    Connect,
    Connected,
    For,
    From,
    FromBridge,
    Node,
    NodeJoined,
    NodeLeaves,
    Refused,
    Remark,
)
from cluster.ray_environment import ADDRESS, before_import, is_loopback

PR_SET_PDEATHSIG = 1  # linux/prctl.h
ANSWER = 2.0  # seconds for the head of a cluster that is noted
LOOK = 0.5  # seconds between looks at the cluster's nodes
AGAIN = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds before an agent is placed anew on a node
NOTE = Path("/tmp/ray/ray_current_cluster")  # where Ray notes the address of a cluster


class Bridge:
    """Keeps an agent on every node of the cluster, and passes on what is said.

    Args:
        connect: what main wants.
        tell: tells main.

    Attributes:
        closing: the run is over.
    """

    def __init__(self, connect: Connect, tell: Any) -> None:
        self._connect = connect
        self._tell = tell
        self._lock = threading.RLock()
        self._relays: dict[str, Any] = {}  # by name
        self._placing: dict[str, int] = {}  # by Ray's id: GPUs that are meant for its agent
        self._failures: dict[str, int] = {}  # by Ray's id: in a row
        self._not_before: dict[str, float] = {}  # by Ray's id: monotonic time
        self._leaving: set[str] = set()
        self._said: set[str] = set()
        self.closing = False

    # -- the start ---------------------------------------------------------------------------------

    def open(self) -> str:
        """Connect to the cluster, or start one; returns what to call it."""
        address = _named(self._connect.settings.address)
        if address == "local":
            _start_local(self._connect)
            return "a local cluster, started for this run"
        import ray

        options: dict[str, Any] = {"address": address}
        if is_loopback(address):
            options["_node_ip_address"] = "127.0.0.1"
        ray.init(log_to_driver=False, configure_logging=False, **options)
        return f"the cluster at {ray.get_runtime_context().gcs_address}"

    def first_nodes(self) -> list[Node]:
        """Place agents on the nodes that there are now.

        Raises:
            NotPlaced: there can be none on any.
        """
        from cluster.nodes import Names, in_use_elsewhere, list_nodes
        from cluster.relay import NotPlaced

        self._names = Names()
        found = list_nodes()
        placed: list[Node] = []
        problems: list[str] = []

        def place(relay: Any) -> None:
            try:
                placed.append(self._place(relay))
            except NotPlaced as error:
                problems.append(f"{relay.name}: {error}")

        threads = [
            threading.Thread(target=place, args=(relay,), daemon=True)
            for relay in self._new_relays(found)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not placed:
            names = ", ".join(self._names(node) for node in in_use_elsewhere(found))
            problems += [f"all GPUs of {names} are in use by other Ray jobs"] if names else []
            problems += [] if problems else ["it has no node that can be used"]
            raise NotPlaced("; ".join(problems))
        for problem in problems:
            self._remark("WARNING", problem)
        order = {self._names(node): i for i, node in enumerate(found)}
        return sorted(placed, key=lambda node: order[node.name])

    def _new_relays(self, found: Any) -> list[Any]:
        """Relays for nodes that have none and may have one; they are counted as placed."""
        from cluster.nodes import share_of
        from cluster.relay import Relay

        relays = []
        nothing_given = not any(node.all_gpus for node in found)
        with self._lock:
            for node in found:
                known = node.node_id in self._placing
                if known or time.monotonic() < self._not_before.get(node.node_id, 0.0):
                    continue
                wanted = self._connect.most
                if wanted is not None:
                    wanted -= sum(max(1, gpus) for gpus in self._placing.values())
                gpus = share_of(node, wanted, nothing_given)
                if gpus is None:
                    continue
                self._placing[node.node_id] = gpus
                name = self._names(node)
                relays.append(
                    Relay(name, node.node_id, gpus, self._connect, self._tell, self._lost)
                )
        return relays

    def _place(self, relay: Any) -> Node:
        from cluster.relay import NotPlaced

        try:
            node: Node = relay.place()
        except NotPlaced:
            self._forget(relay)
            raise
        with self._lock:
            self._relays[relay.name] = relay
            self._failures.pop(relay.node_id, None)
        return node

    def _forget(self, relay: Any) -> None:
        """A node has no agent, and may have another one in a while."""
        with self._lock:
            self._relays.pop(relay.name, None)
            self._placing.pop(relay.node_id, None)
            failures = self._failures.get(relay.node_id, 0)
            self._failures[relay.node_id] = failures + 1
            wait = AGAIN[min(failures, len(AGAIN) - 1)]
            self._not_before[relay.node_id] = time.monotonic() + wait

    def _lost(self, relay: Any) -> None:
        if not self.closing:
            self._forget(relay)

    # -- the run -----------------------------------------------------------------------------------

    def relay_all(self) -> None:
        """Begin to relay: main knows of the nodes."""
        with self._lock:
            for relay in self._relays.values():
                relay.start()

    def order(self, message: For) -> None:
        """Pass an order on; one to a lost node is dropped, as main hears of its loss."""
        relay = self._relays.get(message.node)
        if relay is not None:
            relay.send(message.order)

    def watch(self) -> None:
        """Mind nodes that come, go and are drained, for as long as the run lasts."""
        from cluster.nodes import list_nodes

        while not self.closing:
            time.sleep(LOOK)
            found = list_nodes()
            alive = {node.node_id for node in found}
            with self._lock:
                relays = list(self._relays.values())
            for relay in relays:
                if relay.node_id not in alive:
                    relay.lose("the node is gone")
            for node in found:
                if node.leaves and node.node_id not in self._leaving:
                    self._leaving.add(node.node_id)
                    if self._names(node) in self._relays:
                        self._tell(NodeLeaves(self._names(node), "it is being drained"))
            for relay in self._new_relays(found):
                threading.Thread(target=self._join, args=(relay,), daemon=True).start()

    def _join(self, relay: Any) -> None:
        from cluster.relay import NotPlaced

        try:
            node = self._place(relay)
        except NotPlaced as error:
            self._remark("WARNING", f"{relay.name}: {error}")
            return
        self._tell(NodeJoined(node))
        relay.start()

    def _remark(self, level: str, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._tell(From("cluster", Remark(level, text)))

    def close(self) -> None:
        """End the agents and, if it was started here, the cluster."""
        import ray

        self.closing = True
        with self._lock:
            relays = list(self._relays.values())
        threads = [threading.Thread(target=relay.close, daemon=True) for relay in relays]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ray.shutdown()


def _named(address: str | None) -> str:
    """The cluster that is meant: an address, or local where there is none to be found."""
    if address is not None and address != "auto":
        return address
    given = os.environ.get(ADDRESS) or _noted()
    return given or ("local" if address is None else "auto")


def _noted() -> str | None:
    """The address of a cluster that was started on this machine, or that it has joined."""
    with suppress(OSError, ValueError):
        address = NOTE.read_text("utf-8").strip()
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=ANSWER):
            return address  # the note outlives its cluster
    return None


def _start_local(connect: Connect) -> None:
    import ray

    from cluster.ray_environment import OBJECT_STORE_BYTES, QUICK_DETECTION
    from cluster.sweeper import start_sweeper
    from core.devices.device import choose_devices

    start_sweeper(uuid4().hex)
    devices = choose_devices(None, None, connect.device)
    logical = {} if devices[0].kind == "cuda" else {"num_gpus": connect.most or 1}
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _system_config=dict(QUICK_DETECTION),  # Ray adds to it
        **logical,
    )


def main(descriptor: int) -> None:
    """Serve main until it ends or hangs up."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    ignored = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    from cluster.link import Link

    orders: Any = __import__("queue").SimpleQueue()
    link = Link(Connection(descriptor), orders.put, lambda: orders.put(None))
    link.start()
    connect = orders.get()
    if not isinstance(connect, Connect):
        os._exit(0)
    before_import(_named(connect.settings.address))
    told: Any = link.send
    bridge = Bridge(connect, told)
    opened = threading.Event()
    threading.Thread(target=_end_with_main, args=(orders, bridge, opened), daemon=True).start()
    first = _first_answer(bridge)
    for number in ignored:  # Ray has its own for some
        signal.signal(number, signal.SIG_IGN)
    link.send(first)
    if isinstance(first, Refused):
        link.close()
        os._exit(1)
    bridge.relay_all()
    opened.set()
    try:
        bridge.watch()
    except BaseException:
        if not bridge.closing:  # else Ray is gone because it is being shut down
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    threading.Event().wait()


def _first_answer(bridge: Bridge) -> FromBridge:
    from cluster.relay import NotPlaced

    try:
        cluster = bridge.open()
        return Connected(tuple(bridge.first_nodes()), cluster)
    except NotPlaced as error:
        return Refused(f"no node of it can be used: {error}")
    except Exception as error:
        traceback.print_exc()
        return Refused(" ".join(str(error).split()) or type(error).__name__)


def _end_with_main(orders: Any, bridge: Bridge, opened: threading.Event) -> None:
    """Pass main's orders on; when it hangs up, or is gone, end what was started here."""
    while (message := orders.get()) is not None:
        if isinstance(message, For):
            bridge.order(message)
    if opened.is_set():
        try:
            bridge.close()
        except BaseException:
            traceback.print_exc()
    os._exit(0)
