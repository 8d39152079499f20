"""Fork servers: one has imported torch and the pipelines, and workers are forks of it.

What was imported lies in memory once. In a server nothing runs beside its own thread, and it has
never touched CUDA (`workers.preload` makes sure), so its forks may. Servers are this engine's own:
whatever fork server the caller has from multiprocessing stays as it is.
"""

import multiprocessing
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ForkServer
from typing import Any

from loguru import logger

from core.details import detail
from core.paths import UTF8_MODE
from core.processes.preload_environment import PRELOAD_PARENT, PRELOAD_ROLE
from core.processes.process_start import (
    block_terminal_signals,
    born_with,
    for_us,
    new_process,
    start_process,
)
from core.processes.spawning import SPAWNED
from core.settings import PROJECT_DIR

PRELOAD = "workers.preload"
WAIT_POLICY, SPINS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"  # environment: how threads wait
FORK_TIMEOUT = 20.0  # seconds for a fork of a warm server, which takes milliseconds
FORKSERVER = multiprocessing.get_context("forkserver")
_of_this_thread = threading.local()


@dataclass(frozen=True)
class Server:
    """One incarnation of the fork server."""

    pid: int

    @property
    def alive(self) -> bool:
        """Whether the server runs, without fetching its exit code, which multiprocessing wants."""
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, options) is None
        except ChildProcessError:
            return False

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end: its pipes are closed a moment before that can be seen."""
        if self.alive:
            with suppress(ProcessLookupError):
                end, waiting = os.pidfd_open(self.pid), select.poll()
                try:
                    waiting.register(end, select.POLLIN)
                    waiting.poll(1000 * seconds)
                finally:
                    os.close(end)
        return not self.alive


class Keeper:
    """A thread that keeps one fork server, and ends with this program only.

    The server asks the kernel to be killed with the thread that started it, and each worker
    with the server: so nobody outlives this program, however it ends.

    Args:
        environment: in which the server imports.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._begin()

    def _begin(self) -> None:
        self._fork_server = ForkServer()
        self._server: Future[Server | None] | None = None
        self._lock = threading.Lock()
        self._errands: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]
        self._errands = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def forget_the_parents(self) -> None:
        """Begin anew in a fork of this program: thread and server stayed behind."""
        if self._thread is None:
            return
        alive = vars(self._fork_server)["_forkserver_alive_fd"]
        if alive is not None:
            os.close(alive)
        self._begin()

    def server(self, role: str) -> "Future[Server | None]":
        """The server, warmed up for `role` if there is none yet; None if it cannot be had."""
        with self._lock:
            known = self._server
            if known is not None and known.done():
                server = known.result()
                if server is None or not server.alive:
                    known = None
            if known is None:
                known = self._server = self._errand(lambda: self._warm_up(role))
            return known

    def start(self, process: Any) -> None:
        """
        Raises:
            OSError: the server died, or did not answer in time. A process that comes later
                finds its pipes closed and leaves.
        """
        try:
            self._errand(lambda: start_process(process)).result(FORK_TIMEOUT)
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
        _of_this_thread.fork_server = self._fork_server
        while True:
            result, errand = self._errands.get()
            block_terminal_signals()
            try:
                result.set_result(errand())
            except BaseException as error:
                result.set_exception(error)

    def _warm_up(self, role: str) -> Server | None:
        """Start the server and wait until it has imported everything; runs in the thread."""
        self._fork_server.set_forkserver_preload([PRELOAD])
        reader, writer = FORKSERVER.Pipe(duplex=False)
        probe = new_process(FORKSERVER, _tell_server, (writer,), "probe")
        pid, refusal = None, None
        try:
            with born_with({**server_environment(role), **self._environment}), for_us():
                self._fork_server.ensure_running()
            start_process(probe)
            writer.close()
            pid, refusal = reader.recv()
            probe.join()
        except Exception as error:
            detail(f"The fork server could not be started: {error!r}")
        if pid is not None and refusal is None:
            return Server(pid)
        if pid is not None:  # it would only hold memory
            os.kill(pid, signal.SIGKILL)
        why = f": {refusal}" if refusal else ""
        logger.warning(f"The fork server cannot be used{why}. {SPAWNED}")
        return None


class Keepers:
    """The fork servers that all engines of this program share, each with its keeper.

    Workers of all roles load models with the same libraries: so there is one server for all of
    them in each environment that the libraries read as they are imported, and a small one for
    simulated devices. A program therefore has two or three at the most, and none ends before it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keepers: dict[tuple[bool, frozenset[tuple[str, str]]], Keeper] = {}

    def keeper(self, simulated: bool, environment: Mapping[str, str] | None) -> Keeper:
        """The keeper of a server for such workers.

        Args:
            simulated: whether devices are, so that there is hardly anything to import.
            environment: in which the server must have imported; None: in any.
        """
        with self._lock:
            if environment is None:
                fit = (k for (kind, _), k in self._keepers.items() if kind == simulated)
                if (known := next(fit, None)) is not None:
                    return known
            needed = environment or {}
            key = simulated, frozenset(needed.items())
            return self._keepers.setdefault(key, Keeper(needed))

    def forget_the_parents(self) -> None:
        """Begin anew in a fork of this program."""
        self._lock = threading.Lock()
        for keeper in self._keepers.values():
            keeper.forget_the_parents()


def server_environment(role: str) -> dict[str, str]:
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
        **_waiting(),
        "MKL_CBWR": os.environ.get("MKL_CBWR", "AUTO,STRICT"),
        # Ask NVML instead of CUDA whether there are GPUs: CUDA does not survive it, either.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        **UTF8_MODE,
    }


def _waiting() -> dict[str, str]:
    """How threads wait, unless the user has said it.

    Of two threads, one that spins until the other has a core again takes that core from it. On two
    cores that others wanted, too, twelve demo pictures took 44 s as libgomp spins by default
    (300,000 times), 32 s with 10,000 and 25 s where threads sleep at once; sixty on two idle
    cores 12, 14 and 18 s, and 13.6 s with 5,000.
    """
    return {} if WAIT_POLICY in os.environ else {SPINS: os.environ.get(SPINS, "5000")}


def _tell_server(writer: Connection) -> None:
    """Send, from a fork of our server, the server's pid and why it may not be forked."""
    preload = sys.modules.get(PRELOAD)
    if preload is not None and (preload.complete or preload.refusal):
        with suppress(BrokenPipeError):  # who asked has died meanwhile
            writer.send((os.getppid(), preload.refusal))


def _from_the_threads_server(original: Callable[[Any], Any]) -> Any:
    """Fork, in the thread of a keeper, from the keeper's server.

    multiprocessing has one fork server and no option to use another.
    """

    def connect_to_new_process(files: Any) -> Any:
        ours: ForkServer | None = getattr(_of_this_thread, "fork_server", None)
        return original(files) if ours is None else ours.connect_to_new_process(files)

    return connect_to_new_process


forkserver.connect_to_new_process = _from_the_threads_server(forkserver.connect_to_new_process)
keepers = Keepers()
os.register_at_fork(after_in_child=keepers.forget_the_parents)
