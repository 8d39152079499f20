"""Which nodes a run has, as main sees them: they come and go, and one bridge follows another."""

import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any

from loguru import logger

from cluster.protocol import Connected, Node
from core.engine.backend import Joined, Leaves, Lost, NotUsed
from core.errors import one_line

CUT = "the connection to the cluster has ended"


class Membership:
    """The nodes that there are, and what the engine is told of them.

    The engine would give tasks up where no node is left: it is told of the last ones only when
    nobody came in time.

    Args:
        lock: of all that main knows of the cluster.
        timeout: seconds for which a run without a node waits for one.
        report: tells the engine.
        on_added: called with the name of a node that is there from now on.
        on_gone: called with the name of a node that is there no more, and why.

    Attributes:
        is_cut: the bridge has ended, and the next one has not connected yet.
        lost_some: a bridge or a node was lost.
    """

    def __init__(
        self,
        lock: Any,
        timeout: float,
        report: Callable[[Joined | Leaves | Lost | NotUsed], None],
        on_added: Callable[[str], None],
        on_gone: Callable[[str, str], None],
    ) -> None:
        self._lock = lock
        self._timeout = timeout
        self._report = report
        self._on_added, self._on_gone = on_added, on_gone
        self._nodes: dict[str, Node] = {}
        self._missing: dict[str, str] = {}  # lost nodes of which the engine was not told, and why
        self._none_left: threading.Timer | None = None
        self._closed = False
        self.is_cut = False
        self.lost_some = False

    @property
    def names(self) -> list[str]:
        """Of the nodes that are there, or were when the bridge ended."""
        return list(self._nodes)

    def can_reach(self, name: str) -> bool:
        """Whether a node is there, and a bridge to it."""
        return name in self._nodes and not self.is_cut

    @property
    def ready(self) -> bool:
        """Whether any node can be reached."""
        return bool(self._nodes) and not self.is_cut

    def expect(self, names: Collection[str]) -> None:
        """Report how the nodes that are there differ from those that the engine knows by name."""
        with self._lock:
            nodes = dict(self._nodes)
        for name in sorted(set(names) - nodes.keys()):
            self._report(Lost(name, "it is not there any more"))
        for name in sorted(nodes.keys() - set(names)):
            self._report(Joined(nodes[name].devices))

    def add(self, nodes: Iterable[Node]) -> None:
        """Nodes are there of which the engine knows already."""
        for node in nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        with self._lock:
            self._wait_no_longer()
            self._nodes[node.name] = node
            self._on_added(node.name)

    def joined(self, node: Node) -> None:
        """A node is there, perhaps the first one after a while without any."""
        with self._lock:
            self._add(node)
            self._report(Joined(node.devices))
            self._missing.pop(node.name, None)
            self._tell_of_the_missing()

    def does_without(self, reasons: Iterable[str]) -> None:
        """Nodes, or GPUs of them, are not used, for reasons that begin with their names."""
        for why in map(one_line, reasons):
            logger.warning(f"cluster: not used: {why}")
            self._report(NotUsed(why.partition(": ")[0], why))

    def leaves(self, name: str, why: str) -> None:
        """A node is to go when its workers have finished what they have."""
        self._report(Leaves(name, why))

    def lost(self, name: str, why: str) -> None:
        """A node is gone."""
        with self._lock:
            if name in self._nodes:
                self._bury(name, why)
                if self._nodes:
                    self._tell_of_the_missing()
                else:
                    self._wait_for_a_node(f"{name}: lost: {why}. No node is left")

    def _bury(self, name: str, why: str) -> None:
        """A node's workers are gone; of the node itself the engine may be told later."""
        del self._nodes[name]
        self.lost_some = True
        self._on_gone(name, why)
        self._missing[name] = why

    def _tell_of_the_missing(self, more: str = "") -> None:
        for name, why in self._missing.items():
            self._report(Lost(name, why + more))
        self._missing.clear()

    def _wait_for_a_node(self, why: str) -> None:
        if self._closed or self._none_left is not None:
            return
        logger.warning(f"{why}; waiting {self._timeout:g} s.")
        self._none_left = threading.Timer(self._timeout, self._nobody_came)
        self._none_left.daemon = True
        self._none_left.start()

    def _wait_no_longer(self) -> None:
        if self._none_left is not None:
            self._none_left.cancel()
            self._none_left = None

    def _nobody_came(self) -> None:
        with self._lock:
            if self._none_left is None:  # somebody did, just now
                return
            self._none_left = None
            for name in list(self._nodes):  # of the bridge that has ended
                self._bury(name, CUT)
            self._tell_of_the_missing(f", and no other came in {self._timeout:g} s")

    def close(self) -> None:
        """Wait for nobody any more."""
        with self._lock:
            self._closed = True
            self._wait_no_longer()

    # -- one bridge after the other ----------------------------------------------------------------

    def cut(self, how: str) -> None:
        """The bridge has ended, and with it all agents; it is not said yet which are gone."""
        with self._lock:
            self.is_cut = self.lost_some = True
            self._wait_for_a_node(f"{CUT} ({how}); connecting anew")

    def connected_again(self, message: Connected) -> None:
        """The next bridge is there, and nobody is left of whom the one before knew."""
        with self._lock:
            for name in list(self._nodes):
                self._bury(name, CUT)
            self.is_cut = False
            for node in message.nodes:
                self.joined(node)
            names = ", ".join(node.name for node in message.nodes) or "no node is free yet"
            logger.info(f"Connected to the cluster again: {names}.")
            self.does_without(message.not_used)

    def over(self, how: str) -> None:
        """There is no bridge, and none will come."""
        with self._lock:
            self.is_cut = True
            self._wait_no_longer()
            for name in list(self._nodes):
                self._bury(name, CUT)
            self._missing = dict.fromkeys(self._missing, f"{CUT} {how}")
            self._tell_of_the_missing()
