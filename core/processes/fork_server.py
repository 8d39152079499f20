"""The fork server: it has imported torch and the pipelines, and workers are forks of it.

What was imported lies in memory once. The server has one thread and has never touched CUDA
(`workers.preload` makes sure), so its forks may.
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
from typing import Any

from loguru import logger

from core.paths import UTF8_MODE
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
PRELOAD_ROLE = "WORKER_PRELOAD_ROLE"  # environment: what the fork server shall import
PRELOAD_PARENT = "WORKER_PRELOAD_PARENT"  # environment: the process with which it shall end
FORK_TIMEOUT = 20.0  # seconds for a fork of a warm server, which takes milliseconds
FORKSERVER = multiprocessing.get_context("forkserver")


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
    """A thread that keeps multiprocessing's fork server, and ends with this program only.

    The server asks the kernel to be killed with the thread that started it, and each worker
    with the server: so nobody outlives this program, however it ends.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._server: Future[Server | None] | None = None
        self._lock = threading.Lock()
        self._errands: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]
        self._errands = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def forget_the_parents(self) -> None:
        """Begin anew in a fork of this program: thread and server stayed behind."""
        if self._thread is None:
            return
        # multiprocessing would ask for the exit code of a server that is no child of this process.
        server: Any = forkserver._forkserver
        alive = server._forkserver_alive_fd
        server.__init__()
        if alive is not None:
            os.close(alive)
        self._begin()

    def server(self, role: str, environment: Mapping[str, str]) -> "Future[Server | None]":
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
        while True:
            result, errand = self._errands.get()
            block_terminal_signals()
            try:
                result.set_result(errand())
            except BaseException as error:
                result.set_exception(error)


def _warm_up(role: str, environment: Mapping[str, str]) -> Server | None:
    """Start the server and wait until it has imported everything; runs in the keeper's thread."""
    FORKSERVER.set_forkserver_preload([PRELOAD])
    reader, writer = FORKSERVER.Pipe(duplex=False)
    probe = new_process(FORKSERVER, _tell_server, (writer,), "probe")
    pid, refusal = None, None
    try:
        with born_with({**_server_environment(role), **environment}), for_us():
            forkserver.ensure_running()
        start_process(probe)
        writer.close()
        pid, refusal = reader.recv()
        probe.join()
    except Exception as error:
        logger.debug(f"The fork server could not be started: {error!r}")
    if pid is not None and refusal is None:
        return Server(pid)
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


keeper = Keeper()
os.register_at_fork(after_in_child=keeper.forget_the_parents)
