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
    why = why_unreachable(host.strip("[]"), int(port))
    if why is not None:
        raise InputError(
            f"ray.address: no cluster answers {why}. Start its head there with `ray "
            f"start --head --port {port}`, or leave the address out for a cluster of this machine."
        )


def why_unreachable(host: str, port: int) -> str | None:
    """Where nobody listens, and why, as "at HOST:PORT (Connection refused)"; None if it answers."""
    try:
        socket.create_connection((host, port), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        return f"at {host}:{port} ({getattr(error, 'strerror', None) or error})"
    return None
