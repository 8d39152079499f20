"""Commands without the wait for their imports: forks of a process that has imported them.

Such a command has its own folder, streams, process group, mark and exit code, and starts workers
as any; only the interpreter's start and the imports are left out. Tests of these start it
themselves.
"""

import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from tests import warm_fork_server

PROJECT = Path(__file__).resolve().parent.parent
IMPORTED = (
    *("apps.tweets.command", "apps.edit_benchmark.command", "apps.server.command"),
    "apps.server.safety.key_command",
    # What they import later, once they know that they need it.
    *("core.engine.engine", "core.processes.local_backend", "core.devices.load_turns"),
    *("apps.edit_benchmark.data_sets.imagefolder", "apps.edit_benchmark.data_sets.gedit"),
    *("apps.edit_benchmark.data_sets.re_edit", "core.intake.kinds.generate", "core.judges.clip"),
    *("core.judges.vlm", "core.judges.vlm_logits", "multiprocessing.popen_fork"),
    *("multiprocessing.popen_forkserver", "encodings.utf_8_sig", "pydantic.dataclasses"),
    *("numpy.ma", "rich._emoji_codes", "PIL.BmpImagePlugin", "PIL.GifImagePlugin"),
    *("PIL.JpegImagePlugin", "PIL.PpmImagePlugin", *warm_fork_server.IMPORTED),
)
# Environment: set by pytest and torch, and of no effect on commands.
UNHEEDED = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}
INHERITED = ("Umask:", "SigIgn:", "SigBlk:", "Cpus_allowed:")  # in /proc/self/status
HUB = "huggingface_hub"  # not imported by whoever is forked, and so
# Environment: which may differ, as what begins with HF_.
HEEDED_LATER = {"NO_PROXY", "XDG_RUNTIME_DIR"}
MARK = "TEST_MARK"  # environment: by which a test knows a command and all that it started
UNMARKED = "0" * 32  # as long as a mark
ENVIRONMENT = 50, 51  # where it begins and ends in memory, in /proc/self/stat
POLL = 0.005  # seconds
REQUEST = 1 << 20  # bytes
REPLY = 1 << 10


class WarmCommand:
    """A running fork; a `subprocess.Popen` as far as tests use one."""

    def __init__(self, server: "_Server", pid: int, line: Sequence[str], output: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._line = line
        self._output = output

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.exit_code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = _end(timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self._line, timeout or 0)
            time.sleep(POLL)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it, and whoever has its standard output from it, said until all have ended."""
        end, said = _end(timeout), b""
        while self._output >= 0:
            if not select.select([self._output], [], [], min(end - time.monotonic(), 1e6))[0]:
                raise subprocess.TimeoutExpired(self._line, timeout or 0, said)
            said += (some := os.read(self._output, REQUEST))
            if not some:
                os.close(self._output)
                self._output = -1
        self.wait(end - time.monotonic())
        return said.decode(), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _end(timeout: float | None) -> float:
    return time.monotonic() + (float("inf") if timeout is None else timeout)


class WarmCommands:
    """Commands as forks of one server, which starts with the first and ends with this process.

    Made where the environment is what each test begins with.
    """

    def __init__(self) -> None:
        self._surroundings = _surroundings()

    def start(
        self,
        script: Path,
        arguments: Sequence[str],
        folder: Path,
        errors: TextIO,
        environment: Mapping[str, str],
        output: TextIO | None = None,
    ) -> WarmCommand | None:
        """Run a script of the project in a fork; None if that would be another process.

        What is imported may go by the environment, and a fork has the server's umask, limits and
        ignored signals.

        Args:
            environment: of the command, beyond this process's own.
            output: where its standard output goes; None: to `communicate`.
        """
        late = {name for name in environment if name.startswith("HF_")} | HEEDED_LATER | {MARK}
        if _surroundings() != self._surroundings or environment.keys() - late:
            return None
        server = _server(os.getpid())
        return server.start(script, arguments, folder, errors, environment, output)


def _surroundings() -> tuple[Any, ...]:
    """What a new process takes over from this one."""
    environment = {name: value for name, value in os.environ.items() if name not in UNHEEDED}
    limits = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
    status = Path("/proc/self/status").read_text("utf-8", errors="replace").splitlines()
    return (
        environment,
        [resource.getrlimit(limit) for limit in limits],
        [line for line in status if line.startswith(INHERITED)],
    )


class _Server:
    """The process that forks. It ends with the one that started it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_commands", str(theirs.fileno())],
                cwd=PROJECT,
                # Not the C library's, in which readline sets COLUMNS.
                env={**os.environ, MARK: UNMARKED},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # as its forks have, so that they buffer alike
                start_new_session=True,
            )

    def start(
        self,
        script: Path,
        arguments: Sequence[str],
        folder: Path,
        errors: TextIO,
        environment: Mapping[str, str],
        output: TextIO | None,
    ) -> WarmCommand:
        ours, theirs = os.pipe() if output is None else (-1, os.dup(output.fileno()))
        line = [str(script), *arguments]
        try:
            pid = self._ask([line, str(folder), dict(environment)], [theirs, errors.fileno()])
        finally:
            os.close(theirs)
        return WarmCommand(self, pid, line, ours)

    def exit_code(self, pid: int) -> int | None:
        return self._ask(pid)  # type: ignore[no-any-return]

    def _ask(self, request: Any, files: Sequence[int] = ()) -> Any:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            return json.loads(self._socket.recv(REPLY))


@cache
def _server(pid: int) -> _Server:
    """The server of the process `pid`, which is this one: its forks have their own."""
    return _Server()


def serve(connection: socket.socket) -> None:
    """Fork and reap as asked, until nobody asks any more. Returns in a fork, too: to run."""
    while True:
        data, files, _, _ = socket.recv_fds(connection, REQUEST, 2)
        if not data:
            sys.exit()
        request = json.loads(data)
        if isinstance(request, int):
            pid, status = os.waitpid(request, os.WNOHANG)
            reply = os.waitstatus_to_exitcode(status) if pid else None
        else:
            reply = os.fork()
            if not reply:
                break
        for file in files:
            os.close(file)
        connection.send(json.dumps(reply).encode())
    connection.close()
    _become(*request, *files)


def _become(
    line: list[str], folder: str, environment: dict[str, str], output: int, errors: int
) -> None:
    """Run a script as `python SCRIPT ARGUMENTS` would."""
    _wear(environment.pop(MARK, UNMARKED))
    os.environ.update(environment)
    os.setsid()
    os.chdir(folder)
    for file, number in ((output, 1), (errors, 2)):
        os.dup2(file, number)
        os.close(file)
    warm_fork_server.keep_ready()
    sys.argv[:] = line
    script = Path(line[0])
    sys.path[0] = str(script.parent)
    main = types.ModuleType("__main__")
    main.__file__ = line[0]
    sys.modules["__main__"] = main
    exec(compile(script.read_bytes(), script, "exec"), main.__dict__)


def _wear(mark: str) -> None:
    """Have the kernel show `mark` as this process's own: in the environment it was born with."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = (int(fields[number - 3]) for number in ENVIRONMENT)
    place = ctypes.string_at(begin, end - begin).index(f"{MARK}={UNMARKED}".encode())
    worn = f"{MARK}={mark}".encode()
    assert len(mark) == len(UNMARKED)
    ctypes.memmove(begin + place, worn, len(worn))
    os.environ[MARK] = mark


if __name__ == "__main__":
    for name in IMPORTED:
        __import__(name)
    assert HUB not in sys.modules, "it reads the environment as it is imported"
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
