"""Whose devices do the work: this machine's, or a cluster's. Nothing else knows of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

from core.devices.device import Device, choose_devices
from core.engine.backend import WorkerBackend
from core.errors import DeviceError, InputError
from core.settings import Engine, RaySettings, SupervisionSettings, WorkerSettings


class EngineSettings(Protocol):
    """The settings that decide it."""

    @property
    def engine(self) -> Engine: ...
    @property
    def ray(self) -> RaySettings: ...
    @property
    def use_server(self) -> str: ...
    @property
    def device(self) -> Literal["auto", "cuda", "cpu"]: ...
    @property
    def workers(self) -> WorkerSettings: ...
    @property
    def supervision(self) -> SupervisionSettings: ...
    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self: ...


S = TypeVar("S", bound=EngineSettings)


@dataclass(frozen=True)
class Workplace:
    """Devices, and what runs workers on them.

    Attributes:
        devices: one each, before they are shared out.
        backend: gives an engine its backend; to be asked once for each engine.
        are_named: the user said which devices these are.
        close: lets go of what no engine has taken.
    """

    devices: Sequence[Device]
    backend: Callable[[], WorkerBackend]
    close: Callable[[], None] = lambda: None
    are_named: bool = False


def with_engine(settings: S, engine: str, address: str | None = None) -> S:
    """Settings with another engine and, for a cluster, perhaps another address.

    Raises:
        InputError: there is no such engine.
    """
    if engine not in get_args(Engine):
        known = ", ".join(get_args(Engine))
        raise InputError(f"engine: expected one of {known}, found {engine!r}.")
    ray = settings.ray if address is None else settings.ray.model_copy(update={"address": address})
    return settings.model_copy(update={"engine": engine, "ray": ray})


def server_of(settings: EngineSettings) -> str:
    """Which daemon the run may use, as `use_server` says it: none, where a cluster does the work.

    Raises:
        InputError: a daemon was named, and a cluster as well.
    """
    if settings.engine == "local":
        return settings.use_server
    if settings.use_server not in ("auto", "never"):
        raise InputError(
            f"engine: {settings.engine} and use_server: {settings.use_server} exclude each other; "
            "leave one of them out."
        )
    return "never"


def local_backend(settings: EngineSettings) -> WorkerBackend:
    """Runs workers as processes of this machine."""
    from core.processes.local_backend import LocalBackend  # who has a daemon needs nothing of it

    return LocalBackend(settings.workers.start_method, settings.supervision)


def choose_workplace(
    settings: EngineSettings, num_gpus: int | None, gpu_ids: Sequence[int] | None
) -> Workplace:
    """The devices of a run.

    Args:
        num_gpus: how many at the most; None for all.
        gpu_ids: which, of this machine's.

    Raises:
        DeviceError: they cannot be had.
        InputError: there is no cluster that can be used.
    """
    if settings.engine == "local":
        devices = choose_devices(num_gpus, gpu_ids, settings.device)
        return Workplace(devices, lambda: local_backend(settings))
    if gpu_ids is not None:
        raise DeviceError(
            "engine: ray: Ray chooses the GPUs, whose ids are of one machine; give their number."
        )
    if num_gpus is not None and num_gpus < 1:
        raise DeviceError(f"The number of GPUs must be 1 or more (found {num_gpus}).")
    from cluster.connect import Connections  # nobody else needs anything of it

    found = Connections(
        settings.ray, settings.supervision, settings.workers.start_method, settings.device, num_gpus
    )
    return Workplace(found.devices, found.backend, found.close)
