"""Which way a worker is started, by its settings and by what it needs."""

from collections.abc import Callable
from dataclasses import replace

from loguru import logger

from core.devices.load_turns import loading_environment
from core.processes.forking import SIMULATED, Forking
from core.processes.process_start import Starter
from core.processes.spawning import SPAWNED, Spawning
from core.tasks import ROLES
from core.worker_spec import WorkerSpec


def starter_for(
    method: str, spec: WorkerSpec, patience: float, on_ready: Callable[[], None]
) -> Starter:
    """The way to start workers like `spec`.

    Args:
        method: `forkserver`, `spawn`, or `auto`: the server, where there is something to import.
        patience: seconds that a server may take to warm up.
        on_ready: called, from any thread, when workers can be started.
    """
    if method == "auto":
        method = "spawn" if _is_light(spec) else "forkserver"
    if method != "spawn" and spec.packages:
        # Forks of the server lack them, because they would open a GPU there.
        logger.info(f"For {' and '.join(sorted(spec.packages))}: {SPAWNED.lower()}")
        method = "spawn"
    if method == "spawn":
        return Spawning()
    if spec.model == "simulated":
        return Forking(SIMULATED, patience, on_ready, environment=None)
    # Only pipelines are loaded as the environment says.
    environment = loading_environment(spec) if ROLES[spec.role].of_pipelines else None
    return Forking(spec.role, patience, on_ready, environment)


def _is_light(spec: WorkerSpec) -> bool:
    """A worker that imports next to nothing, and starts as fast by itself."""
    return spec.model == "simulated" or (spec.judge is not None and not spec.judge.type.loads)


class Starters:
    """The starters of workers that differ in what they need, one for each need.

    Args:
        method: as in `starter_for`.
        patience: as in `starter_for`.
        on_ready: called, from any thread, when more workers can be started.
    """

    def __init__(self, method: str, patience: float, on_ready: Callable[[], None]) -> None:
        self._method, self._patience, self._on_ready = method, patience, on_ready
        self._starters: dict[object, Starter] = {}

    @property
    def ready(self) -> bool:
        """Whether workers of every kind that was asked for can be started now."""
        return all(starter.ready for starter in self._starters.values())

    def starter(self, spec: WorkerSpec) -> Starter:
        """The starter of workers like `spec`; it makes ready when it is first asked for."""
        environment = tuple(sorted(loading_environment(spec).items()))
        if spec.saved_with is None:  # most models need none; it is known before a worker starts
            spec = replace(spec, saved_with=frozenset())
        simulated = spec.model == "simulated"
        need = (spec.role, simulated, _is_light(spec), spec.packages, environment)
        if need not in self._starters:
            self._starters[need] = starter_for(self._method, spec, self._patience, self._on_ready)
        return self._starters[need]
