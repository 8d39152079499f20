"""Nodes of a cluster: their names here, and the GPUs of them that a run takes. No Ray in here."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RayNode:
    """A node as Ray lists it.

    Attributes:
        host: a name of the machine.
        gpus: whole GPUs that nobody uses, of `all_gpus`.
        leaves: it is being drained.
        address, port: at which its raylet listens.
    """

    node_id: str
    host: str
    gpus: int
    all_gpus: int
    leaves: bool
    address: str = ""
    port: int = 0


class Names:
    """Names for nodes: that of the machine, with a number from the second of a name on."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._count: Counter[str] = Counter()

    def __call__(self, node: RayNode) -> str:
        if node.node_id not in self._names:
            host = node.host.replace("/", "-")
            self._count[host] += 1
            count = self._count[host]
            self._names[node.node_id] = host if count == 1 else f"{host}-{count}"
        return self._names[node.node_id]


def share_of(node: RayNode, wanted: int | None, nothing_given: bool) -> int | None:
    """GPUs of a node that the run takes; None: it takes none, and has no agent there.

    Args:
        wanted: GPUs that the run still wants; None for all.
        nothing_given: no node of the cluster has GPUs: workers are on CPUs.
    """
    if node.leaves or wanted == 0:
        return None
    if nothing_given:
        return 0
    gpus = node.gpus if wanted is None else min(node.gpus, wanted)
    return gpus or None


def in_use_elsewhere(nodes: Sequence[RayNode]) -> list[RayNode]:
    """Nodes whose GPUs other Ray jobs have."""
    return [node for node in nodes if node.all_gpus and not node.gpus and not node.leaves]


def may_have_more(nodes: Sequence[RayNode], wanted: int) -> bool:
    """Whether there are GPUs enough, but other Ray jobs have some of those that a run wants."""
    stay = [node for node in nodes if not node.leaves]
    return sum(node.gpus for node in stay) < wanted <= sum(node.all_gpus for node in stay)
