"""Commands without the wait for their imports: forks of a process that has imported them.

Such a command has its own folder, streams, process group, mark and exit code, and starts workers
as any; only the interpreter's start and end, and the imports, are left out. Tests of these start
it themselves.
"""

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
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from tests import warm_fork_server
from tests.late_environment import FAULTS, HUB
from tests.warm_server import MARK, REPLY, REQUEST, UNMARKED, Kind

PROJECT = Path(__file__).resolve().parent.parent
# Environment: of no effect on commands. Set by pytest, by torch as it compiles, and by Ray as it is
# imported.
UNHEEDED = {
    "PYTEST_CURRENT_TEST",
    "TORCHINDUCTOR_CACHE_DIR",
    "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR",
    "RAY_CLIENT_MODE",
}
INHERITED = ("Umask:", "SigIgn:", "SigBlk:", "Cpus_allowed:")  # in /proc/self/status
# Environment: which may differ, as what begins with HF_: a fork reads it, or reads it again.
LATE = {"NO_PROXY", "no_proxy", "JUDGE_KEY", "TERM", "XDG_RUNTIME_DIR", MARK, *FAULTS}
RUN = "PYTEST_XDIST_TESTRUNUID"  # environment: the same in all processes of one run of the tests
NO_RUN = uuid.uuid4().hex
POLL = 0.005  # seconds
_processes: list[subprocess.Popen[bytes]] = []


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
    """Commands as forks of one server of each kind, which starts with the first command.

    Made where the environment is what each test begins with.
    """

    def __init__(self) -> None:
        self._surroundings = _surroundings()

    def changed(self) -> dict[str, tuple[Any, Any]]:
        """What of this process's surroundings is no longer as it was, and how it was and is.

        While there is any, commands start with all imports to come: a second each.
        """
        was, now = self._surroundings, _surroundings()
        if was == now:
            return {}
        names = sorted(was.keys() | now.keys())
        return {n: (was.get(n), now.get(n)) for n in names if was.get(n) != now.get(n)}

    def start(
        self,
        script: Path,
        arguments: Sequence[str],
        folder: Path,
        errors: TextIO,
        environment: Mapping[str, str],
        output: TextIO | None = None,
        kind: Kind = "simulated",
    ) -> WarmCommand | None:
        """Run a script of the project in a fork; None if that would be another process.

        What is imported may go by the environment, and a fork has the server's umask, limits and
        ignored signals.

        Args:
            environment: of the command, beyond this process's own.
            output: where its standard output goes; None: to `communicate`.
            kind: what its workers are.
        """
        if not self._is_late(environment):
            return None
        ours, theirs = os.pipe() if output is None else (-1, os.dup(output.fileno()))
        try:
            server = _server(os.getpid(), kind)
            streams = [theirs, errors.fileno()]
            return server.start([str(script), *arguments], folder, environment, streams, ours)
        finally:
            os.close(theirs)

    def start_on(
        self,
        terminal: int,
        script: Path,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        output: int,
    ) -> WarmCommand | None:
        """Run a script as `start` does; a terminal is its standard input and error.

        Args:
            output: where its standard output goes, which may be that terminal.
        """
        if not self._is_late(environment):
            return None
        server = _server(os.getpid(), "simulated")
        return server.start(
            [str(script), *arguments], folder, environment, [output, terminal, terminal]
        )

    def _is_late(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork can take over all of an environment and of this process."""
        of_hub = {name for name in environment if name.startswith(HUB)}
        return not (self.changed() or environment.keys() - of_hub - LATE)


def _surroundings() -> dict[str, Any]:
    """What a new process takes over from this one."""
    environment = {name: value for name, value in os.environ.items() if name not in UNHEEDED}
    limits = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)
    status = Path("/proc/self/status").read_text("utf-8", errors="replace").splitlines()
    return {
        **environment,
        "limits": [resource.getrlimit(limit) for limit in limits],
        "status": [line for line in status if line.startswith(INHERITED)],
    }


class _Server:
    """The process that forks, as this one asks it."""

    def __init__(self, kind: Kind) -> None:
        self._lock = threading.Lock()
        self._connection = _connect(kind)

    def start(
        self,
        line: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        streams: Sequence[int],
        output: int = -1,
    ) -> WarmCommand:
        """Start one.

        Args:
            streams: its standard output and error, and its input if it has any.
            output: where what it says can be read.
        """
        whole = {MARK: UNMARKED, **os.environ, **environment}
        pid = self._ask([line, str(folder), whole], streams)
        return WarmCommand(self, pid, line, output)

    def exit_code(self, pid: int) -> int | None:
        return self._ask(pid)  # type: ignore[no-any-return]

    def _ask(self, request: Any, files: Sequence[int] = ()) -> Any:
        with self._lock:
            socket.send_fds(self._connection, [json.dumps(request).encode()], files)
            return json.loads(self._connection.recv(REPLY))


@cache
def _server(pid: int, kind: Kind) -> _Server:
    """The server of the process `pid`, which is this one: its forks have their own connection."""
    return _Server(kind)


def _connect(kind: Kind) -> socket.socket:
    """A connection to the server that all test processes of this run share."""
    place = f"\0tests-{os.environ.get(RUN, NO_RUN)}-{kind}"  # of no file system
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(place)
        except ConnectionRefusedError:
            connection.close()
            _start(kind, place)
        else:
            return connection


def _start(kind: Kind, place: str) -> None:
    """Start the server, if no other test process does so at the same moment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(place)
        except OSError:
            return
        listener.listen()
        importing = warm_fork_server.IMPORTING if kind == "models" else {}
        _processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.warm_server", str(listener.fileno()), kind],
                cwd=PROJECT,
                # Not the C library's, in which readline sets COLUMNS.
                env={**os.environ, **importing, MARK: UNMARKED},
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # as its forks have, so that they buffer alike
                start_new_session=True,
            )
        )
