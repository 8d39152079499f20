"""What every way to start a worker process shares: a birth that nothing of the caller's disturbs.

The caller's main script is not imported: it may have no main guard, or look at CUDA before the
worker's device mask is set. Nor is anything else of the caller's taken over, such as a start
method of another library (joblib's `loky`), which a worker does not know.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker, spawn, util
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Protocol

from core.paths import for_worker

UNKNOWN_EXIT = 255  # what multiprocessing says of a fork whose server did not tell how it ended
_PROCESS_NAME = "multi-gpu-worker-"
_CHILDREN: set[Any] = getattr(multiprocessing.process, "_children", set())
_environment_lock = threading.Lock()
_thread = threading.local()


class WorkerProcess:
    """A started worker, whichever way; `sentinel` becomes readable when it ends.

    Args:
        lost_server: whether the server that it was forked from is gone; may take a moment to tell.
    """

    def __init__(self, process: Any, lost_server: Callable[[], bool] = lambda: False) -> None:
        self._process = process
        self._lost_server = lost_server
        self.pid: int = process.pid
        self.sentinel: int = process.sentinel
        # multiprocessing would look after it from whichever thread starts the next process, and
        # an exit code can be fetched once only.
        _CHILDREN.discard(process)

    @property
    def exit_code(self) -> int | None:
        """The process's exit code: None while it runs, -n after signal n."""
        code: int | None = self._process.exitcode
        return code

    @property
    def orphaned(self) -> bool:
        """Whether it ended with the server that it was forked from, through no fault of its own."""
        return self.exit_code == UNKNOWN_EXIT and self._lost_server()

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
        """Whether workers need not wait to be started; if not, `on_ready` is called later."""

    def start(
        self, target: Callable[..., None], arguments: Any, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        """Start one. Call it from a thread that outlives the worker.

        Linux sends a child's parent-death signal when the *thread* that started it ends.

        Raises:
            Exception: no process can be started now (OSError; RuntimeError for threads).
        """


def new_process(
    context: SpawnContext | ForkServerContext, target: Any, arguments: Any, name: str
) -> Any:
    return context.Process(target=target, args=arguments, name=_PROCESS_NAME + name, daemon=True)


def start_process(process: Any) -> None:
    """Start a worker, whatever kind of process this is."""
    with _daemons, for_us():
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
def for_us() -> Iterator[None]:
    """Mark what multiprocessing starts in this thread meanwhile as ours, not the caller's."""
    _thread.starts_ours = True
    try:
        yield
    finally:
        _thread.starts_ours = False


def _is_ours() -> bool:
    return getattr(_thread, "starts_ours", False)


def _without_the_callers(original: Callable[[str], dict[str, Any]]) -> Any:
    """Tell workers and their server of the caller only where modules are.

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
    """Start workers even where the caller's standard output is full or broken.

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


def block_terminal_signals() -> None:
    """Block terminal signals in this thread, whose mask a new process inherits.

    A Ctrl-C that meets a worker while it is being born would end it with a traceback; the
    worker unblocks the signals once it ignores them (`workers.boot`).
    """
    # multiprocessing's helper process ignores only the others.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1})
    # It unblocks SIGINT when it starts that process, so it has to come first.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


@contextmanager
def born_with(changes: Mapping[str, str]) -> Iterator[None]:
    """Change the environment while a process is born: multiprocessing cannot pass it one."""
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


def whole_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's own environment with `changes`, less those made for a birth under way."""
    with _environment_lock:
        return {**os.environ, **changes}


def _forget_the_parents() -> None:
    """Begin anew in a fork of this program: whoever held a lock stayed behind."""
    global _environment_lock, _daemons
    _environment_lock, _daemons = threading.Lock(), _Daemons()


os.register_at_fork(after_in_child=_forget_the_parents)
