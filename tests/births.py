"""Processes that multiprocessing starts, as forks of one that has imported what they need.

To their parent they are what they would be as new interpreters: its children (CLONE_PARENT), with
its environment, folder, signals and limits, and with the files that they are handed and no others.
Only the interpreter's start and the imports are left out. Tests of these have a parent that is
started cold, too. `python -m tests.births CONNECTION` waits for births of simulated devices.
"""

import atexit
import ctypes
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import popen_spawn_posix, util
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from core.processes.entry_points import run_fetch
from core.processes.fork_server import PRELOAD
from core.processes.forking import current_umask
from core.processes.preload_environment import PRELOAD_ROLE
from core.worker_spec import WorkerSpec
from tests import late_environment
from tests.forks_on_demand import importing
from tests.quick_exit import run_and_exit

SYS_CLONE = 56
CAN_CLONE = platform.machine() == "x86_64"  # elsewhere the call has another number and order
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 1 << 15, 1 << 21, 1 << 24  # linux/sched.h
PR_SET_PDEATHSIG, PR_SET_NAME, PR_GET_TID_ADDRESS = 1, 15, 40  # linux/prctl.h
BLOCKED = {signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM}  # while it waits
IGNORABLE = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
STANDARD = (0, 1, 2)
SPAWNED, FORK_SERVER, RESOURCE_TRACKER = "spawn_main", "forkserver", "resource_tracker"
CODE = {  # how it begins, of each of them
    SPAWNED: "from multiprocessing.spawn import",
    FORK_SERVER: "from multiprocessing.forkserver import",
    RESOURCE_TRACKER: "from multiprocessing.resource_tracker import",
}
SIMULATED = (
    *("workers.process", "workers.result_saver", "workers.simulated_gpu", "workers.extras"),
    *("workers.library_warnings", "workers.models.registry"),
)
PROJECT = Path(__file__).resolve().parent.parent
REQUEST = 1 << 20  # bytes
FILES = 100
_libc = ctypes.PyDLL(None)  # the lock of the interpreter is held meanwhile
_util: Any = util  # typeshed knows nothing of what is used of it
_born = threading.local()


class Birth(NamedTuple):
    """What the interpreter is to run.

    Attributes:
        name: as the kernel is to show it.
        code: after `-c`.
        arguments: after the code.
        numbers: of the files that it is handed, beyond the standard streams.
    """

    name: str
    code: str
    arguments: list[str]
    numbers: list[int]


Fits = Callable[[Birth], bool]


def birth_of(line: Sequence[Any], files: Sequence[int]) -> Birth | None:
    """What multiprocessing is about to start; None if that is nothing of what is known here."""
    words = [os.fsdecode(word) for word in line]
    if "-c" not in words:
        return None
    place = words.index("-c")
    code, arguments = words[place + 1], words[place + 2 :]
    for name, begins in CODE.items():
        if code.startswith(begins):
            return Birth(name, code, arguments, sorted({*map(int, files)} - {*STANDARD}))
    return None


def take_over_simulated() -> None:
    """Have workers of simulated devices, and their fork servers, born of a process that waits.

    It is started when the first one is asked for, by a thread that never ends: the kernel ends
    some with the thread that has started them, and these count as that one's.
    """
    environment = dict(os.environ)

    def fits(birth: Birth) -> bool:
        if birth.name == FORK_SERVER:
            return os.environ.get(PRELOAD_ROLE) == "simulated"
        return birth.name == SPAWNED and is_simulated()

    Waiting(lambda: started("tests.births", environment), fits).take_over()


def started(module: str, environment: Mapping[str, str]) -> socket.socket | None:
    """Start a process that waits, by a thread that never ends; returns the connection to it.

    None where it could bear nobody.
    """
    if not CAN_CLONE:
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def start() -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno())],
            cwd=PROJECT,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        process.wait()
        threading.Event().wait()

    threading.Thread(target=start, name="births", daemon=True).start()
    return ours


def is_simulated() -> bool:
    """Whether the process that this thread spawns is the worker of a simulated device."""
    spec = _spec()
    return spec is not None and spec.model == "simulated"


def is_light() -> bool:
    """Whether it loads no model: it is that, or asks a served judge, or fetches a hub's model."""
    spec = _spec()
    served = spec is not None and spec.judge is not None and not spec.judge.type.loads
    return served or is_simulated() or run_fetch in _given()


def _given() -> Sequence[Any]:
    """What the process that this thread spawns is to be called with."""
    return getattr(_born, "arguments", ())


def _spec() -> WorkerSpec | None:
    return next((one for one in _given() if isinstance(one, WorkerSpec)), None)


class Waiting:
    """The process that waits, as its parent asks it.

    Args:
        connection: to it; made at the first birth.
        fits: which births are its.
    """

    def __init__(self, connection: Callable[[], socket.socket | None], fits: Fits) -> None:
        self._connect, self._fits = connection, fits
        self._connection: socket.socket | None = None
        self._lock = threading.Lock()
        self._parent = os.getpid()

    def bear(self, birth: Birth) -> int | None:
        """The id of the new process; None if it has to be started."""
        if os.getpid() != self._parent or not self._fits(birth):
            return None
        standard = [number for number in STANDARD if _is_open(number)]
        surroundings = {
            "environment": dict(os.environ),
            "standard": standard,
            "umask": current_umask(),
            "limits": [resource.getrlimit(limit) for limit in LIMITS],
            "blocked": [*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))],
            "ignored": [int(n) for n in IGNORABLE if signal.getsignal(n) is signal.SIG_IGN],
        }
        try:
            folder = os.open(".", os.O_PATH)
        except OSError:
            return None
        request = json.dumps([birth, surroundings]).encode()
        with self._lock:
            try:
                self._connection = self._connection or self._connect()
                if self._connection is None:
                    return None
                files = [folder, *standard, *birth.numbers]
                socket.send_fds(self._connection, [request], files)
                pid: int | None = json.loads(self._connection.recv(REQUEST) or b"null")
            except OSError:
                return None
            finally:
                os.close(folder)
            return pid

    def take_over(self) -> None:
        """Have it bear what multiprocessing starts from now on."""
        start = _util.spawnv_passfds

        def start_or_bear(path: Any, line: Sequence[Any], files: Sequence[int]) -> int:
            birth = birth_of(line, files)
            pid = None if birth is None else self.bear(birth)
            return int(start(path, line, files)) if pid is None else pid

        _util.spawnv_passfds = start_or_bear


def _remember_arguments(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Know, when a process is spawned, what it is to be called with."""

    def launch(self: Any, process: Any) -> None:
        _born.arguments = process._args
        try:
            original(self, process)
        finally:
            _born.arguments = ()

    return launch


_popen: Any = popen_spawn_posix.Popen
_popen._launch = _remember_arguments(_popen._launch)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


# -- the process that waits ----------------------------------------------------------------------


def keep_ready(last: str | None = None, not_for_it: Sequence[int] = ()) -> socket.socket:
    """Have a fork of this process wait, as `wait` says; returns the connection to it.

    Args:
        not_for_it: file descriptors that it shall not have.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        for number in not_for_it:
            os.close(number)
        wait(theirs, last)
    theirs.close()
    atexit.register(ours.close)  # or Python may warn of it at its end
    return ours


def wait(connection: socket.socket, last: str | None = None) -> NoReturn:
    """Bear whatever is asked for, until nobody can ask any more.

    Args:
        last: the name of what this process becomes itself, and so bears nothing after it.
    """
    code = 1
    try:
        if (run := _next(connection, last)) is not None:
            run_and_exit(run)
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def _next(connection: socket.socket, last: str | None) -> Callable[[], None] | None:
    """What a child, or this process itself in the end, has to run; None if that is nothing."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    while True:
        data, files, _, _ = socket.recv_fds(connection, REQUEST, FILES)
        if not data:
            return None
        words, surroundings = json.loads(data)
        birth = Birth(*words)
        pid = 0 if birth.name == last else _clone()
        if pid == 0:
            _libc.prctl(PR_SET_NAME, birth.name.encode())  # before anybody looks for it
            connection.send(json.dumps(os.getpid()).encode())
            return _become(birth, surroundings, files)
        if pid is None:
            connection.send(b"null")
        for file in files:
            os.close(file)


def _clone() -> int | None:
    """Fork a sibling; returns its id, 0 in itself, and None where that cannot be done."""
    place = ctypes.c_void_p()
    if not CAN_CLONE or _libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(place)):
        return None
    flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | signal.SIGCHLD
    none = ctypes.c_long(0)
    call = (ctypes.c_long(SYS_CLONE), ctypes.c_long(flags), none, none, place, none)
    _libc.PyOS_BeforeFork()
    # As the C library's `fork` does: what it knows of its own thread is told anew.
    pid = int(_libc.syscall(*call))
    if pid == 0:
        _libc.PyOS_AfterFork_Child()
    else:
        _libc.PyOS_AfterFork_Parent()
    return None if pid < 0 else pid


def _become(birth: Birth, surroundings: dict[str, Any], files: Sequence[int]) -> Callable[[], None]:
    folder, *handed = files
    os.fchdir(folder)
    _place(handed, [*surroundings["standard"], *birth.numbers])
    os.environ.clear()
    os.environ.update(surroundings["environment"])
    late_environment.read_again()
    os.umask(surroundings["umask"])
    for limit, values in zip(LIMITS, surroundings["limits"], strict=True):
        resource.setrlimit(limit, values)
    for number in IGNORABLE:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        ignored = number in surroundings["ignored"]
        signal.signal(number, signal.SIG_IGN if ignored else default)
    _libc.prctl(PR_SET_PDEATHSIG, 0)  # as after any birth
    signal.pthread_sigmask(signal.SIG_SETMASK, surroundings["blocked"])
    sys.argv[:] = ["-c", *birth.arguments]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    sys.modules.pop(PRELOAD, None)
    if birth.name == FORK_SERVER and (other := _other_project()):
        late_environment.forget_ours()
        sys.path.insert(0, other)
    return lambda: exec(birth.code, main.__dict__)


def _other_project() -> str | None:
    """A copy of this project that a fork server is to import in its place."""
    first = os.environ.get("PYTHONPATH", "").partition(os.pathsep)[0]
    return first if first and Path(first).resolve() != PROJECT else None


def _place(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Give files the numbers by which they are known, and close all others."""
    above = 1 + max([*STANDARD, *numbers])
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    for other in {int(name) for name in os.listdir("/proc/self/fd")} - {*moved}:
        with suppress(OSError):  # the folder's own
            os.close(other)
    for file, number in zip(moved, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def main(connection: int) -> None:
    with importing():
        for name in SIMULATED:
            __import__(name)
    wait(socket.socket(fileno=connection))


if __name__ == "__main__":
    main(int(sys.argv[1]))
