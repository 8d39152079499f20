"""How a worker process comes to life: forked from a warm server, or spawned.

The fork server has imported torch and the pipelines; a worker is a fork of it, ready in tens
of milliseconds, and what was imported lies in memory once. The server has one thread and has
never touched CUDA (`workers.preload` makes sure), so its forks may. A spawned worker is a
fresh interpreter: right for simulated devices, which import nothing, and where the server
cannot be had.

Neither imports the user's main script: it may have no main guard, or look at CUDA before the
worker's device mask is set.
"""

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Protocol

from loguru import logger

from core.worker_spec import WorkerSpec

WorkerMain = Callable[[WorkerSpec, Connection, Connection], None]

PRELOAD = "workers.preload"
PRELOAD_ROLE = "WORKER_PRELOAD_ROLE"  # environment: what the fork server shall import
PRELOAD_PARENT = "WORKER_PRELOAD_PARENT"  # environment: the process with which it shall end
SPAWNED = "Workers are spawned, and import by themselves."
_PROCESS_NAME = "worker-"
_SPAWN = multiprocessing.get_context("spawn")
_FORKSERVER = multiprocessing.get_context("forkserver")
_environment_lock = threading.Lock()
# `Process.start` looks after all children of this program, so another thread that looks after
# its own at that moment could find an exit code already fetched.
_children_lock = threading.Lock()


class WorkerProcess:
    """A started worker, whichever way; `sentinel` becomes readable when it ends."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid: int = process.pid
        self.sentinel: int = process.sentinel

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -n after signal n."""
        with _children_lock:
            code: int | None = self._process.exitcode
        return code

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Release what an ended process holds."""
        with _children_lock:
            self._process.join()
            self._process.close()


class Starter(Protocol):
    """A way to start workers."""

    @property
    def ready(self) -> bool:
        """False while workers would have to wait; `on_ready` follows."""

    def start(
        self, target: WorkerMain, arguments: Any, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        """Start one. Call it from a thread that outlives the worker.

        Linux sends a child's parent-death signal when the *thread* that started it ends.

        Raises:
            OSError: no process can be started now.
        """


class Spawning:
    """A fresh interpreter for each worker."""

    ready = True

    def start(
        self, target: WorkerMain, arguments: Any, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        process = _new_process(_SPAWN, target, arguments, name)
        _block_terminal_signals()
        with _environment(environment):
            _start(process)
        return WorkerProcess(process)


class Forking:
    """Forks of the fork server, which all pools of this program share."""

    def __init__(self, role: str, patience: float, on_ready: Callable[[], None]) -> None:
        """
        Args:
            role: of the workers to come.
            patience: seconds that the server may take.
        """
        self._instead: Spawning | None = None
        self._patience = patience
        self._on_ready = on_ready
        self._prepared = _server.prepare(role)
        timer = threading.Timer(patience, self._give_up)
        timer.daemon = True
        timer.start()
        self._prepared.add_done_callback(lambda _: timer.cancel())
        self._prepared.add_done_callback(lambda _: on_ready())

    @property
    def ready(self) -> bool:
        return self._prepared.done() or self._instead is not None

    def _give_up(self) -> None:
        """The server takes too long: something that it imports hangs."""
        logger.warning(f"The fork server is not ready after {self._patience:g} s. {SPAWNED}")
        self._instead = Spawning()
        self._on_ready()

    def start(
        self, target: WorkerMain, arguments: Any, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        if self._instead is None and not self._prepared.result():
            self._instead = Spawning()
        if self._instead is not None:
            return self._instead.start(target, arguments, name, environment)
        with _environment_lock:
            whole = {**os.environ, **environment}
        process = _new_process(_FORKSERVER, _in_environment, (whole, target, arguments), name)
        return _server.start(process, self._patience)


class _ForkServer:
    """multiprocessing's fork server, kept by a thread that ends with this program only.

    The server asks the kernel to be killed with the thread that started it, and each worker
    with the server: so nobody outlives this program, however it ends.
    """

    def __init__(self) -> None:
        self._prepared: Future[bool] | None = None
        self._lock = threading.Lock()
        self._role = ""
        self._errands: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]
        self._errands = queue.SimpleQueue()
        self._keeper: threading.Thread | None = None

    def prepare(self, role: str) -> "Future[bool]":
        """Begin to warm the server up, once; the result says whether it can be used."""
        with self._lock:
            if self._prepared is None or (self._prepared.done() and not self._prepared.result()):
                self._role = role
                self._prepared = self._in_keeper(self._prepare)
            return self._prepared

    def start(self, process: Any, patience: float) -> WorkerProcess:
        """A fork of the server, which is started again if somebody killed it.

        Raises:
            OSError: there is none, after `patience` seconds at the latest. One that comes later
                finds its pipes closed and leaves.
        """
        try:
            self._in_keeper(lambda: self._start(process)).result(patience)
        except EOFError:
            raise OSError("the fork server has died") from None
        return WorkerProcess(process)

    def _in_keeper(self, errand: Callable[[], Any]) -> "Future[Any]":
        if self._keeper is None:
            # A daemon, unlike an executor's: it must not hold up an interrupted program.
            self._keeper = threading.Thread(target=self._keep, name="fork-server", daemon=True)
            self._keeper.start()
        result: Future[Any] = Future()
        self._errands.put((result, errand))
        return result

    def _keep(self) -> None:
        while True:
            result, errand = self._errands.get()
            try:
                result.set_result(errand())
            except BaseException as error:
                result.set_exception(error)

    def _prepare(self) -> bool:
        _FORKSERVER.set_forkserver_preload([PRELOAD])
        probe = _new_process(_FORKSERVER, _check_server, (), "probe")
        try:
            self._ensure_running()
            probe.start()  # returns when the server has imported everything
            probe.join()
            usable: bool = probe.exitcode == 0
        except (OSError, EOFError) as error:
            logger.debug(f"The fork server could not be started: {error!r}")
            usable = False
        if not usable:
            logger.warning(f"The fork server cannot be used. {SPAWNED}")
        return usable

    def _start(self, process: Any) -> None:
        self._ensure_running()
        _start(process)

    def _ensure_running(self) -> None:
        _block_terminal_signals()
        environment = {
            PRELOAD_ROLE: self._role,
            PRELOAD_PARENT: str(os.getpid()),
            # Threads of a library would not survive the fork; workers set their own number.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_CBWR": os.environ.get("MKL_CBWR", "AUTO,STRICT"),
            # Ask NVML instead of CUDA whether there are GPUs: CUDA does not survive it, either.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
        with _environment(environment):
            forkserver.ensure_running()


def _check_server() -> None:
    """In a fork of the server: was everything imported, and by our server?"""
    sys.exit(0 if getattr(sys.modules.get(PRELOAD), "complete", False) else 1)


def _in_environment(environment: dict[str, str], target: WorkerMain, arguments: Any) -> None:
    """A forked worker's first act."""
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def _new_process(
    context: SpawnContext | ForkServerContext, target: Any, arguments: Any, name: str
) -> Any:
    return context.Process(target=target, args=arguments, name=_PROCESS_NAME + name, daemon=True)


def _start(process: Any) -> None:
    with _children_lock:
        process.start()


def _without_main_script(original: Callable[[str], dict[str, Any]]) -> Any:
    """Have workers not import the main script, for which multiprocessing has no option."""

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        if name.startswith(_PROCESS_NAME):
            data = {key: data[key] for key in data if not key.startswith("init_main")}
        return data

    return get_preparation_data


spawn.get_preparation_data = _without_main_script(spawn.get_preparation_data)


def _block_terminal_signals() -> None:
    """In this thread, whose mask a new process inherits.

    A Ctrl-C that meets a worker while it is being born would end it with a traceback; the
    worker unblocks the signals once it ignores them (`workers.boot`).
    """
    # It unblocks SIGINT when it starts its helper process, so it has to come first.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Have a process born with `changes`; multiprocessing has no environment of its own to pass."""
    with _environment_lock:
        before = {key: os.environ.get(key) for key in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value


_server = _ForkServer()


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
        method = "spawn" if spec.model == "simulated" else "forkserver"
    if method == "spawn":
        return Spawning()
    return Forking("simulated" if spec.model == "simulated" else spec.role, patience, on_ready)
