"""The bridge: a process of its own that is Ray's driver, between main and the agents.

`python -c "from cluster.bridge import main; main(FD)"`, where FD is a socket to main. It ends when
main does, and everything that it started with it.
"""

import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from cluster.join import address_of, end_agents_of_the_bridge_before, join
from cluster.link import Link
from cluster.nodes import Names, RayNode, in_use_elsewhere, may_have_more
from cluster.placements import PROMPT, Placements
from cluster.protocol import (
    Alive,
    Connect,
    Connected,
    For,
    From,
    NodeJoined,
    NodeLeaves,
    NodeLost,
    NotUsed,
    Refused,
    Remark,
)
from cluster.ray_environment import before_import

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOOK = 0.5  # seconds between looks at the cluster's nodes
FREED = 5.0  # seconds in which the GPUs of a job that has just ended are free
BLIND = 60.0  # seconds for which the cluster's head may fail to say which nodes there are
SIGNS = 4  # of life, within the time of the fence
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


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
        self._known: set[str] = set()  # names of nodes of which main was told
        self._placements = Placements(connect.most)
        self._names = Names()
        self._taken = False  # another job was quicker somewhere
        self._leaving: set[str] = set()
        self._problems: list[str] = []  # why nodes are not used
        self._introduced = False
        self.closing = False

    # -- the start ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect to the cluster and place agents; main hears of it by `introduce`.

        Raises:
            NotPlaced: there can be no agent on any node.
        """
        self._cluster, self._address = join(self._connect, address_of(self._connect))
        if self._connect.again:
            end_agents_of_the_bridge_before(self._connect)
        self._place_first()

    def _place_first(self) -> None:
        """Place agents on the nodes that there are now.

        A slow node is waited for no longer than the others need, unless this is the run's first
        bridge and its GPUs are counted on, or there is no other node.
        """
        from cluster.ray_state import list_nodes
        from cluster.relay import NotPlaced

        began = time.monotonic()
        threads: list[threading.Thread] = []
        most = self._connect.most
        while True:
            found = list_nodes()
            is_new = not threads and time.monotonic() - began < FREED
            if is_new and most is not None and may_have_more(found, most):
                time.sleep(LOOK)  # a run that has just ended may have them
                continue
            new = [self._begin_to_join(relay) for relay in self._new_relays(found)]
            threads += new
            self._order = [self._names(node) for node in found]
            was_placing = any(thread.is_alive() for thread in threads)
            placing = _wait_for(threads, LOOK)
            if was_placing and not placing:
                continue  # what one node did not have another one may have
            waited = time.monotonic() - began
            if waited > PROMPT and self._connect.again:  # the run goes on; others join by and by
                break
            if self._relays:
                if not placing or self._placements.suffice() or (waited > PROMPT and most is None):
                    break
            elif not placing and not new:
                # GPUs of the bridge before may be free in a moment, and so may be those of a job
                # that was quicker.
                if self._connect.again:
                    break
                free_soon = in_use_elsewhere(found) or self._taken
                if waited > FREED or not free_soon:
                    break
                time.sleep(LOOK)
        if not self._connect.again:  # what the bridge before had may not be free yet
            self._note_what_others_have(list_nodes())
        if not self._relays and not self._connect.again:
            raise NotPlaced("; ".join(self._problems) or "it has no node that can be used")

    def _note_what_others_have(self, found: Sequence[RayNode]) -> None:
        """Note whose GPUs a run does without that would have taken them."""
        with self._lock:
            wanted = self._placements.wanted()
            own = {node.node_id: self._placements.gpus_of(node.node_id) for node in found}
            # Of those it is noted why already, and Ray may not know yet that an agent's are free.
            failed = {node.node_id for node in found if self._placements.has_failed(node.node_id)}
        if wanted is not None and wanted <= 0:
            return
        others = [node for node in found if not node.leaves and node.node_id not in failed]
        lacking = {node: node.all_gpus - node.gpus - own[node.node_id] for node in others}
        nodes = {node: count for node, count in lacking.items() if count > 0}
        if not nodes:
            return
        jobs = _whose_are(nodes)
        for node, count in nodes.items():
            whose = f": {jobs[node]}" if jobs.get(node) else ""
            self._note(
                f"{self._names(node)}: {count} of its {node.all_gpus} GPUs are in use by other "
                f"Ray jobs{whose}"
            )

    def _new_relays(self, found: Sequence[RayNode]) -> list[Any]:
        """Relays for nodes that have none and may have one; they are counted as placed."""
        from cluster.relay import Relay

        with self._lock:
            names = {node.node_id: self._names(node) for node in found}
            for name in [names[late] for late in self._placements.late() if late in names]:
                words = f"{name}: waited {PROMPT:g} s for its agent; it is used when it comes"
                self._tell(From("cluster", Remark("WARNING", words)))
            return [
                Relay(names[node.node_id], node, gpus, self._connect, self._tell, self._lost)
                for node, gpus in self._placements.take(found)
            ]

    def _place(self, relay: Any) -> None:
        """Have an agent on a node, to which main may be introduced then."""
        from cluster.relay import GpusTaken, NotPlaced

        try:
            relay.place()
        except Exception as error:
            self._forget(relay)
            self._taken = self._taken or isinstance(error, GpusTaken)
            if isinstance(error, NotPlaced):
                raise
            traceback.print_exc()
            raise NotPlaced(repr(error)) from None
        with self._lock:
            if relay.why is not None:  # it was lost at once
                raise NotPlaced(relay.why)
            is_wanted = self._placements.come(relay.node_id)
            if is_wanted:
                self._relays[relay.name] = relay
        if not is_wanted:
            relay.close()
            self._forget(relay)
            raise NotPlaced("its GPUs are not wanted any more, as others came before")

    def _forget(self, relay: Any) -> None:
        """A node has no agent, and may have another one in a while."""
        with self._lock:
            held: Any = self._relays.get(relay.name)
            if held is relay:
                del self._relays[relay.name]
            self._placements.end(relay.node_id)

    def _lost(self, relay: Any) -> None:
        if self.closing:
            return
        with self._lock:
            self._forget(relay)
            if relay.name in self._known:
                self._known.discard(relay.name)
                self._tell(NodeLost(relay.name, relay.why))
            else:
                self._note(f"{relay.name}: {relay.why}")

    # -- the run -----------------------------------------------------------------------------------

    def introduce(self) -> None:
        """Tell main of the cluster; of nodes that come or go later it is told by and by.

        Raises:
            NotPlaced: those that were placed are lost already.
        """
        from cluster.relay import NotPlaced

        with self._lock:
            nodes = [relay.node for relay in self._relays.values()]
            if not nodes and not self._connect.again:
                raise NotPlaced("; ".join(self._problems))
            nodes.sort(key=lambda node: self._order.index(node.name))
            self._known.update(node.name for node in nodes)
            problems = tuple(self._problems)
            self._tell(Connected(tuple(nodes), self._cluster, self._address, problems))
            self._introduced = True

    def order(self, message: For) -> None:
        """Pass an order on; one to a lost node is dropped, as main hears of its loss."""
        relay = self._relays.get(message.node)
        if relay is not None:
            relay.send(message.order)

    def watch(self) -> None:
        """Mind nodes that come, go and are drained, for as long as the run lasts."""
        from cluster.ray_state import list_nodes

        seen_at = time.monotonic()
        while not self.closing:
            time.sleep(LOOK)
            try:
                found = list_nodes()
            except Exception:  # the head may be starting anew; agents go on without it
                if self.closing or time.monotonic() - seen_at > BLIND:
                    raise
                traceback.print_exc()
                continue
            seen_at = time.monotonic()
            self._look_at(found)

    def _look_at(self, found: Sequence[RayNode]) -> None:
        alive = {node.node_id for node in found}
        with self._lock:
            relays = list(self._relays.values())
            for node in found:
                leaves = node.leaves and node.node_id not in self._leaving
                if leaves and (name := self._names(node)) in self._known:
                    self._leaving.add(node.node_id)
                    self._tell(NodeLeaves(name, "it is being drained"))
        for relay in relays:
            if relay.node_id not in alive:
                relay.lose("the node is gone")
        for relay in self._new_relays(found):
            self._begin_to_join(relay)

    def _begin_to_join(self, relay: Any) -> threading.Thread:
        thread = threading.Thread(target=self._join, args=(relay,), daemon=True)
        thread.start()
        return thread

    def _join(self, relay: Any) -> None:
        from cluster.relay import NotPlaced

        try:
            self._place(relay)
        except NotPlaced as error:
            self._note(f"{relay.name}: {error}")
            return
        with self._lock:
            held: Any = self._relays.get(relay.name)
            if held is not relay:
                return
            self._forget_problems(relay.name)
            if self._introduced:
                self._known.add(relay.name)
                self._tell(NodeJoined(relay.node))

    def _forget_problems(self, name: str) -> None:
        """A node is used now, and main forgets why it was not: the same reason is new next time."""
        self._problems = [one for one in self._problems if one.partition(": ")[0] != name]

    def _note(self, problem: str) -> None:
        """Tell main, once until the node joins, why it is not used."""
        with self._lock:
            if problem not in self._problems:
                self._problems.append(problem)
                if self._introduced:
                    self._tell(NotUsed(problem))

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


def main(descriptor: int) -> None:
    """Serve main until it ends or hangs up."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _ignore_signals()
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    link = Link(Connection(descriptor), orders.put, lambda: orders.put(None))
    link.start()
    connect = orders.get()
    if not isinstance(connect, Connect):
        os._exit(0)
    before_import(address_of(connect))
    bridge = Bridge(connect, link.send)
    opened = threading.Event()
    pulse = connect.settings.fence_timeout / SIGNS
    for run, arguments in ((_end_with_main, (orders, bridge, opened)), (_show_life, (link, pulse))):
        threading.Thread(target=run, args=arguments, daemon=True).start()
    refusal = _refusal(bridge)
    if refusal is not None:
        link.send(Refused(refusal))
        link.close()
        os._exit(1)
    opened.set()
    try:
        bridge.watch()
    except BaseException:
        if not bridge.closing:  # else Ray is gone because it is being shut down
            _break_down()
    threading.Event().wait()


def _whose_are(nodes: Iterable[RayNode]) -> dict[RayNode, str]:
    """Which jobs have GPUs of some nodes, as far as it is known."""
    from cluster.holders import holdings, whose

    try:
        held = holdings()
        return {n: whose([one for one in held if one.node_id == n.node_id]) for n in nodes}
    except Exception:  # what Ray promises nobody is no reason to use no GPU
        traceback.print_exc()
        return {}


def _wait_for(threads: list[threading.Thread], seconds: float) -> bool:
    """Wait until all have ended; False if they have, and True if time was up before."""
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return any(thread.is_alive() for thread in threads)


def _ignore_signals() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def _refusal(bridge: Bridge) -> str | None:
    """Open it; returns why the cluster cannot be used, if it cannot."""
    from cluster.relay import NotPlaced

    try:
        bridge.open()
        _ignore_signals()  # Ray has its own for some
        bridge.introduce()
    except NotPlaced as error:
        return f"no node of it can be used: {error}"
    except Exception as error:
        traceback.print_exc()
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _show_life(link: Link, seconds: float) -> None:
    while True:
        link.send(Alive())
        time.sleep(seconds)


def _end_with_main(
    orders: "queue.SimpleQueue[Any]", bridge: Bridge, opened: threading.Event
) -> None:
    """Pass main's orders on; when it hangs up, or is gone, end what was started here."""
    try:
        while (message := orders.get()) is not None:
            if isinstance(message, For):
                bridge.order(message)
    except BaseException:  # main's orders would come to nothing from now on
        _break_down()
    if opened.is_set():
        try:
            bridge.close()
        except BaseException:
            traceback.print_exc()
    os._exit(0)


def _break_down() -> None:
    """End at once: main starts the next bridge."""
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
