"""Workers as forks of the fork server: ready in tens of milliseconds."""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from loguru import logger

from core.paths import for_worker
from core.processes.fork_server import FORKSERVER, keepers
from core.processes.process_start import WorkerProcess, new_process, whole_environment
from core.processes.spawning import SPAWNED, Spawning
from core.worker_spec import WorkerSpec

SIMULATED = "simulated"  # in place of a role: what such workers do, no role changes
SERVER_END = 1.0  # seconds in which the server's end can be seen, once its pipes are closed


class Forking:
    """Starts workers as forks of a fork server, which all engines of this program share."""

    def __init__(
        self,
        role: str,
        patience: float,
        on_ready: Callable[[], None],
        environment: Mapping[str, str] | None,
    ) -> None:
        """
        Args:
            role: of the workers to come; `simulated` for simulated devices.
            patience: seconds that the server may take.
            environment: in which the server must import; None: in any.
        """
        self._role = role
        self._keeper = keepers.keeper(role == SIMULATED, environment)
        self._patience = patience
        self._on_ready = on_ready
        self._instead: Spawning | None = None
        self._prepare()

    def _prepare(self) -> None:
        self._server = self._keeper.server(self._role)
        timer = threading.Timer(self._patience, self._spawn_instead)
        timer.daemon = True
        timer.start()
        self._server.add_done_callback(lambda _: timer.cancel())
        self._server.add_done_callback(lambda _: self._on_ready())

    @property
    def ready(self) -> bool:
        return self._server.done() or self._instead is not None

    def _spawn_instead(self) -> None:
        """Start workers as fresh interpreters: the server, or something that it imports, hangs."""
        logger.warning(f"The fork server does not answer. {SPAWNED}")
        self._instead = Spawning()
        self._on_ready()

    def start(
        self, target: Callable[..., None], arguments: Any, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        if any(isinstance(given, WorkerSpec) and given.packages for given in arguments):
            return Spawning().start(target, arguments, name, environment)
        server = None if self._instead is not None else self._server.result()
        if server is None:
            self._instead = self._instead or Spawning()
            return self._instead.start(target, arguments, name, environment)
        if not server.alive:
            self._prepare()
            raise OSError("the fork server has died, and is started again")
        whole = {name: for_worker(v) for name, v in whole_environment(environment).items()}
        surroundings = (whole, _current_folder(), current_umask(), target, arguments)
        process = new_process(FORKSERVER, _in_surroundings, surroundings, name)
        try:
            self._keeper.start(process)
        except TimeoutError:
            self._spawn_instead()
            raise
        return WorkerProcess(process, lost_server=lambda: server.ends_within(SERVER_END))


def _current_folder() -> str | None:
    """The current folder as a worker has to be given it; None if it was removed."""
    try:
        return for_worker(os.getcwd())
    except OSError:
        return None


def current_umask() -> int | None:
    """This process's umask; `os.umask` would have to set another one for a moment to tell it."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
            return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))
    except (OSError, StopIteration):
        return None


def _in_surroundings(
    environment: dict[str, str],
    folder: str | None,
    umask: int | None,
    target: Callable[..., None],
    arguments: Any,
) -> None:
    """A forked worker's first act: to look as if main had started it, and not the server."""
    os.environ.clear()
    os.environ.update(environment)
    if folder is not None:
        with suppress(OSError):
            os.chdir(folder)
    if umask is not None:
        os.umask(umask)
    target(*arguments)
