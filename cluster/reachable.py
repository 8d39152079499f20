"""Whether anybody listens where a cluster's head should be: Ray itself tries for two minutes."""

import os
import socket

from cluster.ray_environment import ADDRESS
from core.errors import InputError

ANSWER = 5.0  # seconds


def check_reachable(address: str | None) -> None:
    """Try the port of a cluster's head, where its address is known.

    Args:
        address: the setting `ray.address`; None stands for the environment's.

    Raises:
        InputError: nobody listens there, or no such host is known.
    """
    named = address or os.environ.get(ADDRESS) or "auto"
    host, _, port = named.rpartition(":")
    if not host or "://" in named or not port.isdecimal():
        return  # auto, local, or in a form of Ray's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"ray.address: no cluster answers at {named} ({why}). Start its head there with `ray "
            f"start --head --port {port}`, or leave the address out for a cluster of this machine."
        ) from None
