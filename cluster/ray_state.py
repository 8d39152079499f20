"""What Ray tells of its cluster's nodes, and of an agent's process."""

from collections.abc import Mapping
from typing import Any

import ray

from cluster.nodes import RayNode


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
            address=str(node["NodeManagerAddress"]),
            port=int(node["NodeManagerPort"]),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _host(node: Mapping[str, Any]) -> str:
    """The name that the node was given, or its machine's; addresses tell people nothing."""
    given, address = node.get("NodeName"), node["NodeManagerAddress"]
    return str(given if given and given != address else node["NodeManagerHostname"])


def process_of(actor: Any) -> tuple[str, int] | None:
    """Address and port of an actor's process; None while it has none."""
    from ray._private.state import actors  # there is no public form

    known = actors(actor._actor_id.hex())
    if not known.get("Pid"):
        return None
    return str(known["Address"]["IPAddress"]), int(known["Address"]["Port"])
