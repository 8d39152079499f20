"""Which nodes a Ray cluster has, what they are called here, and which of them are to go."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray


@dataclass(frozen=True)
class RayNode:
    """A node as Ray lists it.

    Attributes:
        host: a name of the machine.
        gpus: whole GPUs that nobody uses, of `all_gpus`.
        leaves: it is being drained.
    """

    node_id: str
    host: str
    gpus: int
    all_gpus: int
    leaves: bool


def list_nodes() -> list[RayNode]:
    """Nodes that are alive, in the order in which Ray knows them."""
    from ray._private.state import state  # of these two there is no public form

    free: Mapping[str, Mapping[str, float]] = state.available_resources_per_node()
    draining = state.get_draining_nodes()
    return [
        RayNode(
            node_id=(node_id := str(node["NodeID"])),
            host=_host(node),
            gpus=int(free.get(node_id, {}).get("GPU", 0)),
            all_gpus=int(node["Resources"].get("GPU", 0)),
            leaves=node_id in draining,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _host(node: Mapping[str, Any]) -> str:
    """The name that the node was given, or its machine's; addresses tell people nothing."""
    given, address = node.get("NodeName"), node["NodeManagerAddress"]
    return str(given if given and given != address else node["NodeManagerHostname"])


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


def others_have_its_gpus(actor: Any, node_id: str, gpus: int) -> bool:
    """Whether an actor has no process because other actors have the GPUs that it is to have.

    That they are not free says nothing: Ray counts them as used while the process is started.
    """
    from ray._private.state import actors, state  # of these, too, there is no public form
    from ray.core.generated.gcs_pb2 import ActorTableData

    if actors(actor._actor_id.hex()).get("Pid"):
        return False
    alive = state._connect_and_get_accessor().get_actor_table(None, "ALIVE")
    others = [ActorTableData.FromString(each) for each in alive]
    here = [o for o in others if o.address.node_id.hex() == node_id]
    held: float = sum(o.required_resources["GPU"] for o in here)
    nodes = [node for node in ray.nodes() if node["NodeID"] == node_id]
    has: float = sum(node["Resources"].get("GPU", 0) for node in nodes)
    return has - held < gpus
