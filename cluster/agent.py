"""The actor that holds a node's workers. One for each node, with all of the GPUs that it got."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.fence import Fence
from cluster.node_files import NodeFiles
from cluster.node_models import NodeModels
from cluster.node_workers import NodeWorkers
from cluster.one_agent import take_place
from cluster.protocol import Connect, FromAgent, Order
from cluster.software import other_software, software_here
from core.devices.device import Device, choose_devices
from core.errors import MultiGPUError
from core.processes.local_backend import LocalBackend

POLL = 2.0  # seconds for which a question for reports waits; its answer shows that we are there


def devices_here(kind: Any, gpus: int) -> list[Device]:
    """Devices of this process: the GPUs that Ray gave it, or as many CPU workers.

    Raises:
        DeviceError: no GPU works, or there is none where one has to be.
    """
    found = choose_devices(None, None, kind)
    if found[0].kind == "cpu" and gpus > 1:
        return choose_devices(gpus, None, kind)
    return found


# A slow question must not hold up orders. One at a time of each: more would change their order.
@ray.remote(concurrency_groups={"poll": 1, "send": 1, "files": 2})
class Agent:
    """Holds the local backend of a node, and relays what is told to and by it.

    Args:
        connect: what the run has told the bridge, pickled: another version of this program might
            not know its parts.
        software: that this node must have.
        gpus: that Ray gave to this actor.
    """

    def __init__(self, connect: bytes, software: Mapping[str, str], gpus: int) -> None:
        self._connect = connect
        self._software = software
        self._gpus = gpus
        self._files: NodeFiles
        self._fence: Fence
        self._workers: NodeWorkers

    def hello(self) -> tuple[str, list[Device]] | str:
        """Begin; returns the folder of results that are to be fetched, and this node's devices.

        Or why it can have no worker.
        """
        other = other_software(self._software, software_here())
        if other is not None:
            return other
        connect: Connect = pickle.loads(self._connect)
        settings = connect.settings
        node = ray.get_runtime_context().get_node_id()
        self._place = take_place(f"{connect.run}-{node}", settings.fence_timeout)
        self._fence = Fence(settings.fence_timeout)
        self._files = NodeFiles(Path(settings.cache_dir).expanduser(), settings.cache_gib * 1024**3)
        try:
            devices = devices_here(connect.device, self._gpus)
            spool = self._files.make_spool()
        except MultiGPUError as error:
            return str(error)
        except OSError as error:
            return f"ray.cache_dir: {settings.cache_dir}: {error.strerror}"
        backend = LocalBackend(connect.start_method, connect.supervision)
        self._workers = NodeWorkers(lambda: backend, devices, NodeModels(backend.fetch))
        return spool, devices

    @ray.method(concurrency_group="files")  # type: ignore[untyped-decorator]
    def files(self, what: str, *arguments: Any) -> Any:
        """Call a method of this node's `NodeFiles`."""
        self._fence.holds()
        return getattr(self._files, what)(*arguments)

    @ray.method(concurrency_group="poll")  # type: ignore[untyped-decorator]
    def poll(self, after: int) -> list[tuple[int, FromAgent]]:
        """Reports beyond a number, with theirs; the caller has all up to it."""
        self._fence.heard()  # here alone: by their answers the bridge says whether we are there
        return self._workers.reports(after, POLL)

    @ray.method(concurrency_group="send")  # type: ignore[untyped-decorator]
    def order(self, first: int, orders: Sequence[Order]) -> None:
        """Take orders, numbered from `first`; those that came before are dropped."""
        self._fence.holds()
        self._files.keep_spool()
        self._workers.order(first, orders)

    def close(self) -> None:
        """Kill the workers."""
        self._workers.close()
        self._files.close()
