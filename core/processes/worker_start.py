"""How a worker process comes to life: forked from a warm server, or spawned.

The fork server has imported torch and the pipelines; a worker is a fork of it, ready in tens
of milliseconds, and what was imported lies in memory once. The server has one thread and has
never touched CUDA (`workers.preload` makes sure), so its forks may. A spawned worker is a
fresh interpreter: right for simulated devices, which import nothing, and where the server
cannot be had.

Neither imports the user's main script: it may have no main guard, or look at CUDA before the
worker's device mask is set. Nor does either take over anything else of the caller's, such as a
start method of another library (joblib's `loky`), which a worker does not know.
"""

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, spawn, util
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Protocol

from loguru import logger

from core.devices.load_turns import loading_environment
from core.paths import UTF8_MODE, for_worker
from core.settings import PROJECT_DIR
from core.worker_spec import WorkerSpec

WorkerMain = Callable[[WorkerSpec, Connection, Connection], None]

PRELOAD = "workers.preload"
PRELOAD_ROLE = "WORKER_PRELOAD_ROLE"  # environment: what the fork server shall import
PRELOAD_PARENT = "WORKER_PRELOAD_PARENT"  # environment: the process with which it shall end
SPAWNED = "Workers are spawned, and import by themselves."
FORK_TIMEOUT = 20.0  # seconds for a fork of a warm server, which takes milliseconds
_PROCESS_NAME = "multi-gpu-worker-"
_CHILDREN: set[Any] = getattr(multiprocessing.process, "_children", set())
_SPAWN = multiprocessing.get_context("spawn")
_FORKSERVER = multiprocessing.get_context("forkserver")
_environment_lock = threading.Lock()
_thread = threading.local()


class WorkerProcess:
    """A started worker, whichever way; `sentinel` becomes readable when it ends."""

    def __init__(self, process: Any, server: "_Server | None" = None) -> None:
        self._process = process
        self._server = server
        self.pid: int = process.pid
        self.sentinel: int = process.sentinel
        # multiprocessing would look after it from whichever thread starts the next process, and
        # an exit code can be fetched once only.
        _CHILDREN.discard(process)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -n after signal n."""
        code: int | None = self._process.exitcode
        return code

    @property
    def orphaned(self) -> bool:
        """It ended with the server that it was forked from, through no fault of its own."""
        return self._server is not None and self.exit_code is not None and not self._server.alive

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Release what an ended process holds."""
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
            Exception: no process can be started now (OSError; RuntimeError for threads).
        """


class Spawning:
    """A fresh interpreter for each worker."""

    ready = True

    def start(
        self, target: Callable[..., None], arguments: Any, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        process = _new_process(_SPAWN, target, arguments, name)
        _block_terminal_signals()
        with _environment(environment):
            _start(process)
        return WorkerProcess(process)


class Forking:
    """Forks of the fork server, which all pools of this program share."""

    def __init__(
        self,
        role: str,
        patience: float,
        on_ready: Callable[[], None],
        environment: Mapping[str, str],
    ) -> None:
        """
        Args:
            role: of the workers to come.
            patience: seconds that the server may take.
            environment: in which the server shall import.
        """
        self._role = role
        self._environment = environment
        self._patience = patience
        self._on_ready = on_ready
        self._instead: Spawning | None = None
        self._prepare()

    def _prepare(self) -> None:
        self._server = _keeper.server(self._role, self._environment)
        timer = threading.Timer(self._patience, self._spawn_instead)
        timer.daemon = True
        timer.start()
        self._server.add_done_callback(lambda _: timer.cancel())
        self._server.add_done_callback(lambda _: self._on_ready())

    @property
    def ready(self) -> bool:
        return self._server.done() or self._instead is not None

    def _spawn_instead(self) -> None:
        """Something that the server imports hangs, or the server does."""
        logger.warning(f"The fork server does not answer. {SPAWNED}")
        self._instead = Spawning()
        self._on_ready()

    def start(
        self, target: WorkerMain, arguments: Any, name: str, environment: Mapping[str, str]
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
        with _environment_lock:
            whole = {**os.environ, **environment}
        whole = {name: for_worker(value) for name, value in whole.items()}
        surroundings = (whole, _current_folder(), _umask(), target, arguments)
        process = _new_process(_FORKSERVER, _in_surroundings, surroundings, name)
        try:
            _keeper.start(process)
        except TimeoutError:
            self._spawn_instead()
            raise
        return WorkerProcess(process, server)


@dataclass(frozen=True)
class _Server:
    """One incarnation of the fork server."""

    pid: int

    @property
    def alive(self) -> bool:
        """Without fetching its exit code, which multiprocessing wants."""
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, options) is None
        except ChildProcessError:
            return False


class _Keeper:
    """A thread that keeps multiprocessing's fork server, and ends with this program only.

    The server asks the kernel to be killed with the thread that started it, and each worker
    with the server: so nobody outlives this program, however it ends.
    """

    def __init__(self) -> None:
        self._server: Future[_Server | None] | None = None
        self._lock = threading.Lock()
        self._errands: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]
        self._errands = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def in_use(self) -> bool:
        return self._thread is not None

    def server(self, role: str, environment: Mapping[str, str]) -> "Future[_Server | None]":
        """The server, warmed up for `role` if there is none yet; None if it cannot be had."""
        with self._lock:
            known = self._server
            if known is not None and known.done():
                server = known.result()
                if server is None or not server.alive:
                    known = None
            if known is None:
                known = self._server = self._errand(lambda: _warm_up(role, environment))
            return known

    def start(self, process: Any) -> None:
        """
        Raises:
            OSError: the server died, or did not answer in time. A process that comes later
                finds its pipes closed and leaves.
        """
        try:
            self._errand(lambda: _start(process)).result(FORK_TIMEOUT)
        except EOFError:
            raise OSError("the fork server has died") from None

    def _errand(self, errand: Callable[[], Any]) -> "Future[Any]":
        if self._thread is None:
            # A daemon, unlike an executor's: it must not hold up an interrupted program.
            self._thread = threading.Thread(target=self._keep, name="fork-server", daemon=True)
            self._thread.start()
        result: Future[Any] = Future()
        self._errands.put((result, errand))
        return result

    def _keep(self) -> None:
        while True:
            result, errand = self._errands.get()
            _block_terminal_signals()
            try:
                result.set_result(errand())
            except BaseException as error:
                result.set_exception(error)


def _warm_up(role: str, environment: Mapping[str, str]) -> _Server | None:
    """In the keeper: start the server and wait until it has imported everything."""
    _FORKSERVER.set_forkserver_preload([PRELOAD])
    reader, writer = _FORKSERVER.Pipe(duplex=False)
    probe = _new_process(_FORKSERVER, _tell_server, (writer,), "probe")
    pid, refusal = None, None
    try:
        with _environment({**_server_environment(role), **environment}), _for_us():
            forkserver.ensure_running()
        _start(probe)
        writer.close()
        pid, refusal = reader.recv()
        probe.join()
    except Exception as error:
        logger.debug(f"The fork server could not be started: {error!r}")
    if pid is not None and refusal is None:
        return _Server(pid)
    if pid is not None:  # it would only hold memory
        os.kill(pid, signal.SIGKILL)
    why = f": {refusal}" if refusal else ""
    logger.warning(f"The fork server cannot be used{why}. {SPAWNED}")
    return None


def _server_environment(role: str) -> dict[str, str]:
    known = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    return {
        PRELOAD_ROLE: role,
        PRELOAD_PARENT: str(os.getpid()),
        # The server looks for modules here, and not in the current folder.
        "PYTHONPATH": os.pathsep.join([str(PROJECT_DIR), *known]),
        "PYTHONSAFEPATH": "1",
        # Threads of a library would not survive the fork; workers set their own number.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_CBWR": os.environ.get("MKL_CBWR", "AUTO,STRICT"),
        # Ask NVML instead of CUDA whether there are GPUs: CUDA does not survive it, either.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        **UTF8_MODE,
    }


def _tell_server(writer: Connection) -> None:
    """Send, from a fork of our server, the server's pid and why it may not be forked."""
    preload = sys.modules.get(PRELOAD)
    if preload is not None and (preload.complete or preload.refusal):
        writer.send((os.getppid(), preload.refusal))


def _current_folder() -> str | None:
    """The current folder as a worker has to be given it; None if it was removed."""
    try:
        return for_worker(os.getcwd())
    except OSError:
        return None


def _umask() -> int | None:
    """Of this process, without the moment of another one that `os.umask` takes to tell it."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
            return next(int(line.split()[1], 8) for line in status if line.startswith("Umask:"))
    except (OSError, StopIteration):
        return None


def _in_surroundings(
    environment: dict[str, str],
    folder: str | None,
    umask: int | None,
    target: WorkerMain,
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


def _new_process(
    context: SpawnContext | ForkServerContext, target: Any, arguments: Any, name: str
) -> Any:
    return context.Process(target=target, args=arguments, name=_PROCESS_NAME + name, daemon=True)


def _start(process: Any) -> None:
    """Start a worker, whatever kind of process this is."""
    with _daemons, _for_us():
        process.start()


class _Daemons:
    """A context in which a daemonic process may have children.

    multiprocessing forbids them, because it ends such a process without a chance to end its
    children. A worker ends with its parent all the same: the kernel sees to it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0  # threads; one may be held up for long
        self._daemonic = False

    def __enter__(self) -> None:
        current = multiprocessing.current_process()
        with self._lock:
            if not self._inside:
                self._daemonic = current.daemon
            self._inside += 1
            if self._daemonic:
                current.daemon = False

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._daemonic:
                multiprocessing.current_process().daemon = True


_daemons = _Daemons()


@contextmanager
def _for_us() -> Iterator[None]:
    """Mark what multiprocessing starts in this thread meanwhile as ours, not the caller's."""
    _thread.starts_ours = True
    try:
        yield
    finally:
        _thread.starts_ours = False


def _is_ours() -> bool:
    return getattr(_thread, "starts_ours", False)


def _without_the_callers(original: Callable[[str], dict[str, Any]]) -> Any:
    """Have workers and their server be told only where modules are.

    multiprocessing would tell them the caller's start method and main script, and has no option
    against it. To ask for the start method also settles it: the caller could set none later.
    """

    def get_preparation_data(name: str) -> dict[str, Any]:
        importing_main = getattr(multiprocessing.current_process(), "_inheriting", False)
        if not _is_ours() or importing_main:  # which `original` refuses: it would go on for ever
            return original(name)
        here = getattr(multiprocessing.process, "ORIGINAL_DIR", None) or os.curdir
        return {"name": name, "sys_path": [for_worker(path or here) for path in sys.path]}

    return get_preparation_data


def _unless_for_us(original: Callable[[], None]) -> Callable[[], None]:
    """Have a caller's full or broken standard output keep no worker from its start.

    multiprocessing flushes it, so that no fork of this process would print its buffer again; ours
    are no such forks.
    """

    def flush_std_streams() -> None:
        if not _is_ours():
            original()

    return flush_std_streams


spawn.get_preparation_data = _without_the_callers(spawn.get_preparation_data)
_util: Any = util  # typeshed knows nothing of its private part
_util._flush_std_streams = _unless_for_us(_util._flush_std_streams)


def _block_terminal_signals() -> None:
    """In this thread, whose mask a new process inherits.

    A Ctrl-C that meets a worker while it is being born would end it with a traceback; the
    worker unblocks the signals once it ignores them (`workers.boot`).
    """
    # multiprocessing's helper process ignores only the others.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    # It unblocks SIGINT when it starts that process, so it has to come first.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


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


def _forget_the_parents() -> None:
    """Begin anew in a fork of this program: the keeper's thread and server stayed behind."""
    global _environment_lock, _daemons, _keeper
    _environment_lock, _daemons = threading.Lock(), _Daemons()
    if _keeper.in_use:
        # multiprocessing would ask for the exit code of a server that is no child of this process.
        server: Any = forkserver._forkserver
        alive = server._forkserver_alive_fd
        server.__init__()
        if alive is not None:
            os.close(alive)
        _keeper = _Keeper()


_keeper = _Keeper()
os.register_at_fork(after_in_child=_forget_the_parents)


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
    if method != "spawn" and spec.packages:
        # Forks of the server lack them, because they would open a GPU there.
        logger.info(f"For {' and '.join(sorted(spec.packages))}: {SPAWNED.lower()}")
        method = "spawn"
    if method == "spawn":
        return Spawning()
    role = "simulated" if spec.model == "simulated" else spec.role
    return Forking(role, patience, on_ready, loading_environment(spec))
