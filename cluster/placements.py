"""On which nodes a run has an agent or waits for one, and for how many GPUs. No Ray in here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.nodes import RayNode, share_of

PROMPT = 10.0  # seconds for which GPUs of an agent that does not come yet are counted on
AGAIN = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds before an agent is placed anew on a node


@dataclass
class _Placement:
    """An agent that is there, or is to come.

    Attributes:
        began: monotonic time at which it was begun.
        is_there: it has come.
        late: others may take its part.
    """

    gpus: int
    began: float = field(default_factory=time.monotonic)
    is_there: bool = False
    late: bool = False

    @property
    def weight(self) -> int:
        """Workers that it stands for; of a node without GPUs it is one at least."""
        return max(1, self.gpus)


class Placements:
    """Shares out the GPUs that a run wants among nodes. Not safe for several threads.

    A node that is slow must not keep a run from GPUs of other nodes: after `PROMPT` seconds these
    are taken in its place, and its agent is of use only where something is wanted still.

    Args:
        most: GPUs that are wanted; None for all.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._by_node: dict[str, _Placement] = {}  # by Ray's id
        self._failures: dict[str, int] = {}  # by Ray's id: in a row
        self._not_before: dict[str, float] = {}  # by Ray's id: monotonic time

    def wanted(self) -> int | None:
        """GPUs beyond those that are there or counted on; None for all."""
        return None if self._most is None else self._most - self._sum(with_coming=True)

    def suffice(self) -> bool:
        """Whether all that is wanted is there."""
        return self._most is not None and self._sum(with_coming=False) >= self._most

    def _sum(self, with_coming: bool) -> int:
        counted = [
            placement
            for placement in self._by_node.values()
            if placement.is_there or (with_coming and not placement.late)
        ]
        return sum(placement.weight for placement in counted)

    def take(self, nodes: Sequence[RayNode]) -> list[tuple[RayNode, int]]:
        """Choose nodes that are to have an agent, with GPUs for it; they are counted on."""
        nothing_given = not any(node.all_gpus for node in nodes)
        chosen = []
        for node in nodes:
            waits = time.monotonic() < self._not_before.get(node.node_id, 0.0)
            if node.node_id in self._by_node or waits:
                continue
            gpus = share_of(node, self.wanted(), nothing_given)
            if gpus is not None:
                self._by_node[node.node_id] = _Placement(gpus)
                chosen.append((node, gpus))
        return chosen

    def late(self) -> list[str]:
        """Nodes whose agents have just become late."""
        now = time.monotonic()
        found = [
            node_id
            for node_id, placement in self._by_node.items()
            if not (placement.is_there or placement.late) and now > placement.began + PROMPT
        ]
        for node_id in found:
            self._by_node[node_id].late = True
        return found

    def come(self, node_id: str) -> bool:
        """An agent has come; False: its part was taken by others meanwhile."""
        placement = self._by_node[node_id]
        wanted = self.wanted()
        if placement.late and wanted is not None and placement.weight > wanted:
            return False
        placement.is_there = True
        self._failures.pop(node_id, None)
        return True

    def gpus_of(self, node_id: str) -> int:
        """GPUs that a node's agent has or is to have."""
        placement = self._by_node.get(node_id)
        return 0 if placement is None else placement.gpus

    def has_failed(self, node_id: str) -> bool:
        """Whether a node's last agent did not come, or was lost."""
        return node_id in self._failures

    def end(self, node_id: str) -> None:
        """A node has no agent, and may have another one in a while."""
        self._by_node.pop(node_id, None)
        failures = self._failures.get(node_id, 0)
        self._failures[node_id] = failures + 1
        wait = AGAIN[min(failures, len(AGAIN) - 1)]
        self._not_before[node_id] = time.monotonic() + wait
