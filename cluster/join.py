"""How the bridge comes to a cluster: the one that is meant, or one that it starts here."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from cluster.protocol import Connect
from cluster.ray_environment import ADDRESS, is_loopback
from cluster.ray_folder import ray_folder

ANSWER = 2.0  # seconds for the head of a cluster that is noted
LOOK = 0.1  # seconds between looks at agents that are to end
NOTE = "ray/ray_current_cluster"  # where Ray notes the address of a cluster, in that folder
LOCAL = "local"  # the address of a cluster that is started for the run


def address_of(connect: Connect) -> str:
    """The cluster that is meant: an address, or local where there is none to be found."""
    address = connect.settings.address
    if address is not None and address != "auto":
        return address
    given = os.environ.get(ADDRESS) or _noted()
    return given or (LOCAL if address is None else "auto")


def join(connect: Connect, address: str) -> tuple[str, str]:
    """Connect to the cluster, or start one.

    Returns what to call it, and the address at which another bridge finds it.
    """
    if address == LOCAL:
        _start_local(connect)
        return "a local cluster, started for this run", LOCAL
    import ray
    from ray.job_config import JobConfig

    from cluster.holders import COMMAND

    options: dict[str, Any] = {"address": address, "namespace": connect.run}
    options["job_config"] = JobConfig(metadata={COMMAND: _command_of_main()})
    if is_loopback(address):
        options["_node_ip_address"] = "127.0.0.1"
    try:
        ray.init(log_to_driver=False, configure_logging=False, **options)
    except ConnectionError:
        if address != _noted() or not _enable_token():
            raise
        ray.init(log_to_driver=False, configure_logging=False, **options)
    found: str = ray.get_runtime_context().gcs_address
    return f"the cluster at {found}", found


def _enable_token() -> bool:
    """Have Ray show this user's token, if there is one; to a cluster of this machine alone."""
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available as enable,  # Ray itself does so for auto alone
    )

    return bool(enable(warn_if_disabled=False))


def end_agents_of_the_bridge_before(connect: Connect) -> None:
    """See to it that no worker of the run is left that nobody hears any more.

    Ray ends the agents of a dead driver within a second. Where it cannot reach one, the fence ends
    that one: so long is waited.
    """
    import ray
    from ray.util import list_named_actors

    end = time.monotonic() + connect.settings.fence_timeout
    while (names := list_named_actors()) and time.monotonic() < end:
        for name in names:
            with suppress(ValueError):  # it is gone
                ray.kill(ray.get_actor(name), no_restart=True)
        time.sleep(LOOK)


def _command_of_main() -> str:
    """What others who wait for the run's GPUs are told of it; this process's own tells nothing."""
    try:
        line = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:  # main is gone, and this process is about to be
        return ""
    return " ".join(line.decode("utf-8", "replace").split("\0")).strip()


def _noted() -> str | None:
    """The address of a cluster that was started on this machine, or that it has joined."""
    with suppress(OSError, ValueError):
        address = (ray_folder() / NOTE).read_text("utf-8").strip()
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
        namespace=connect.run,
        num_cpus=1,  # Ray starts as many processes in advance, of which agents use one
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _system_config=dict(QUICK_DETECTION),  # Ray adds to it
        **logical,
    )
