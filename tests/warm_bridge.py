"""Bridges to a Ray cluster, as forks of a process that has imported Ray: children of their command.

Tests of a bridge's own start have no warm commands. `python -m tests.warm_bridge CONNECTION` waits
for bridges of the process that has started it.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cluster import bridge_process
from cluster.ray_environment import ONE_MACHINE, VARIABLES, before_import
from tests import births
from tests.forks_on_demand import importing

PROJECT = Path(__file__).resolve().parent.parent
NAME = "cluster.bridge"  # as the kernel shows it; and what the command line of any bridge has
RAY = "RAY_"  # how Ray's variables begin, which it reads as it is imported
UNHEEDED = "RAY_CLIENT_MODE"  # set by Ray as it is imported
KNOWN = {**VARIABLES, ONE_MACHINE: "0"}  # as it is imported here
# Not `cluster.agent`: a remote class draws a random number, and all forks would have the same ones.
NEEDED = (
    *("ray", "ray.job_config", "ray.util.scheduling_strategies", "cluster.bridge"),
    *("cluster.ray_state", "cluster.holders", "cluster.node_files", "cluster.node_workers"),
    *("cluster.reachable", "cluster.software"),
)
BECOME = "from tests.warm_bridge import become; become(); "


def import_ray() -> None:
    """Import what a bridge to a cluster of this machine needs, with its environment."""
    before, hook = dict(os.environ), sys.excepthook
    before_import("127.0.0.1:0")
    for name in NEEDED:
        __import__(name)
    os.environ.clear()
    os.environ.update(before)
    sys.excepthook = hook  # a command's own
    assert _random_id() != _random_id(), "two bridges would take each other's objects for their own"


def _random_id() -> bytes:
    """What Ray draws first in a fork of this process."""
    from ray._raylet import JobID, PlacementGroupID

    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, PlacementGroupID.of(JobID.from_int(1)).binary())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as drawn:
        found = drawn.read()
    os.wait()
    return found


def become() -> None:
    """Take over what a bridge is started with, and its command is not."""
    log, folder, environment = json.loads(sys.argv.pop())
    os.setsid()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


class _Bridge(subprocess.Popen[bytes]):
    """A bridge, born of the process that waits if there is one that can."""

    waiting: births.Waiting

    def __init__(self, line: Sequence[str], **given: Any) -> None:
        pid = self._born(line[-1], **given)
        if pid is None:
            super().__init__(line, **given)
            return
        self.args, self.pid, self.returncode = line, pid, None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = True
        self._waitpid_lock = threading.Lock()

    def _born(
        self,
        code: str,
        env: Mapping[str, str],
        cwd: Path,
        stdout: Any,
        pass_fds: Sequence[int],
        **_: Any,
    ) -> int | None:
        of_ray = {n: v for n, v in env.items() if n.startswith(RAY) and n != UNHEEDED}
        if not of_ray.items() <= KNOWN.items():
            return None
        log = stdout.fileno()
        arguments = [json.dumps([log, str(cwd), dict(env)])]
        return self.waiting.bear(
            births.Birth(NAME, BECOME + code, arguments, sorted([log, *pass_fds]))
        )


def _subprocess_of(connection: Callable[[], socket.socket | None]) -> Any:
    """The module, whose processes are bridges."""
    waiting = births.Waiting(connection, lambda _: True)
    bridges: Any = types.ModuleType("subprocess")
    vars(bridges).update(vars(subprocess))
    bridges.Popen = type("Bridge", (_Bridge,), {"waiting": waiting})
    return bridges


def keep_ready() -> socket.socket:
    """Have a child of this process, which has imported Ray, wait until this one starts a bridge.

    Returns the connection to it, for processes to close that are started meanwhile.
    """
    ours = births.keep_ready()
    vars(bridge_process)["subprocess"] = _subprocess_of(lambda: ours)
    return ours


@contextmanager
def of_this_process() -> Iterator[None]:
    """Within it bridges that this process starts are such forks, too."""
    with patch.object(bridge_process, "subprocess", _of_process(os.getpid())):
        yield


@cache
def _of_process(pid: int) -> Any:
    """For the process `pid`, which is this one: what waits begins with its first bridge."""
    environment = dict(os.environ)
    return _subprocess_of(lambda: births.started("tests.warm_bridge", environment))


def main(connection: int) -> None:
    with importing():
        import_ray()
    births.wait(socket.socket(fileno=connection))


if __name__ == "__main__":
    main(int(sys.argv[1]))
