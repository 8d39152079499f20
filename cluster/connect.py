"""Gives engines their workers on a cluster."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal
from uuid import uuid4

from loguru import logger

from cluster.backend import ClusterBackend, devices_of
from cluster.bridge_process import BridgeProcess
from cluster.join import LOCAL, address_of
from cluster.lasting_link import CONNECTING
from cluster.protocol import Connect, Connected, Refused
from cluster.ray_folder import check_room_for_sockets
from cluster.reachable import check_reachable
from cluster.software import software_here
from core.devices.device import Device
from core.errors import DeviceError, InputError
from core.settings import RaySettings, SupervisionSettings

WANTED = "2.60.0"
NO_TOKEN = "InvalidAuthToken"  # is what Ray prints where a cluster demands a token
TOKEN = (
    "it demands a token that this command has not. Copy ~/.ray/auth_token of the machine where its "
    "head was started to the same place here, and export RAY_AUTH_MODE=token"
)


class Connections:
    """Connections to one Ray cluster, or to a local one where there is none: one for each engine.

    The first is there from the beginning, as it tells which devices there are.

    Args:
        num_gpus: how many at the most; None for all.

    Attributes:
        devices: of all nodes at the beginning, one each.

    Raises:
        InputError: Ray is missing here, or the cluster cannot be used.
        DeviceError: it has fewer GPUs than are asked for.
    """

    def __init__(
        self,
        settings: RaySettings,
        supervision: SupervisionSettings,
        start_method: str,
        device: Literal["auto", "cuda", "cpu"],
        num_gpus: int | None,
    ) -> None:
        check_installed()
        check_reachable(settings.address)
        self._told = Connect(
            settings, supervision, start_method, device, num_gpus, software_here(), ""
        )
        if address_of(self._told) == LOCAL:
            check_room_for_sockets()
        self._open: ClusterBackend | None
        first, self.devices, not_used = _connect(self._told)
        first.does_without(not_used)
        self._open = first

    def backend(self) -> ClusterBackend:
        """The connection that is open, or a new one; it is the engine's to close."""
        backend, self._open = self._open, None
        if backend is None:
            backend, _, not_used = _connect(self._told)
            backend.expect({device.node for device in self.devices})
            backend.does_without(not_used)
        return backend

    def close(self) -> None:
        """Close the connection that no engine has taken."""
        if self._open is not None:
            self._open.close()
            self._open = None


def _connect(told: Connect) -> tuple[ClusterBackend, list[Device], Sequence[str]]:
    """A connection, the devices that there are, and what is not used, with why."""
    settings, num_gpus = told.settings, told.most
    bridges: list[BridgeProcess] = []

    def start() -> BridgeProcess:
        bridges[:] = [BridgeProcess()]
        return bridges[0]

    backend = ClusterBackend(start, replace(told, run=uuid4().hex))
    answer = backend.connected(CONNECTING)
    if not isinstance(answer, Connected):
        words, no_token = bridges[0].last_words, bridges[0].has_printed(NO_TOKEN)
        backend.close()
        place = settings.address or "auto"
        said = f" Ray's last words: {words}" if words else ""
        silent = f"it did not answer within {CONNECTING:.0f} s.{said}"
        why = TOKEN if no_token else answer.why if isinstance(answer, Refused) else silent
        raise InputError(f"ray.address: the cluster ({place}) cannot be used: {why}")
    devices = devices_of(answer.nodes)
    if num_gpus is not None and len(devices) < num_gpus:
        backend.close()
        why = "".join(f" Not used: {why}." for why in answer.not_used)
        raise DeviceError(
            f"{num_gpus} GPUs were asked for, but {answer.cluster} has {len(devices)} free.{why}"
        )
    names = ", ".join(f"{node.name} ({len(node.devices)})" for node in answer.nodes)
    logger.info(f"Ray: {answer.cluster}: {names}.")
    return backend, devices, answer.not_used


def check_installed() -> None:
    """
    Raises:
        InputError: Ray is not installed here, or in another version than this program is for.
    """
    try:
        found = version("ray")
    except PackageNotFoundError:
        raise InputError(
            f"engine: ray needs Ray, which is not installed here: pip install ray=={WANTED}"
        ) from None
    if found.split(".")[:2] != WANTED.split(".")[:2]:
        raise InputError(
            f"engine: ray needs Ray {WANTED}, and {found} is installed: pip install ray=={WANTED}"
        )
