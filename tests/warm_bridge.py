"""A command's bridge to a Ray cluster as a fork that waits for its work: it has imported Ray.

It is a child of the command, as any bridge. Tests of a bridge's own start have no warm commands.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cluster import bridge_process
from cluster.ray_environment import VARIABLES, before_import

NAME = "cluster.bridge"  # as the kernel shows it, once it is one; and what its command line has
RAY = "RAY_"  # how Ray's variables begin, which it reads as it is imported
UNHEEDED = "RAY_CLIENT_MODE"  # set by Ray as it is imported
NEEDED = (
    "cluster.bridge",
    "cluster.relay",
    "cluster.ray_state",
    "cluster.holders",
    "ray.job_config",
)
REQUEST = 1 << 20  # bytes
_known: dict[str, str] = {}  # Ray's variables, as it was imported here


def import_ray() -> None:
    """Import what a bridge to a cluster of this machine needs, with its environment."""
    before_import("127.0.0.1:0")
    hook = sys.excepthook
    for name in ("ray", *NEEDED):
        __import__(name)
    sys.excepthook = hook  # a command's own
    _known.update(_of_ray(os.environ))
    for name in VARIABLES:
        del os.environ[name]


def _of_ray(environment: Any) -> dict[str, str]:
    return {n: v for n, v in environment.items() if n.startswith(RAY) and n != UNHEEDED}


def keep_ready() -> socket.socket:
    """Have a child of this process wait until this process starts its first bridge, or ends.

    Returns the connection to it, for processes to close that are started meanwhile.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        _wait(theirs)
    theirs.close()
    waiting = [pid]

    class Bridge(subprocess.Popen[bytes]):
        """That child, where a process is to be started that it can be."""

        def __init__(self, line: Sequence[str], **given: Any) -> None:
            environment = given["env"]
            if not (waiting and _of_ray(environment).items() <= _known.items()):
                super().__init__(line, **given)
                return
            [descriptor] = given["pass_fds"]
            request = json.dumps([line[-1], descriptor, given["cwd"], environment], default=str)
            socket.send_fds(ours, [request.encode()], [given["stdout"].fileno(), descriptor])
            ours.close()
            self.args = line
            self.pid = waiting.pop()
            self.returncode: Any = None
            self.stdin = self.stdout = self.stderr = None
            self._child_created = True
            self._waitpid_lock = threading.Lock()

    for_bridges: Any = types.ModuleType("subprocess")
    vars(for_bridges).update({**vars(subprocess), "Popen": Bridge})
    vars(bridge_process)["subprocess"] = for_bridges
    return ours


def _wait(connection: socket.socket) -> NoReturn:
    """Become the bridge as soon as that is asked for."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        data, (log, link), _, _ = socket.recv_fds(connection, REQUEST, 2)
        connection.close()
        if data:
            code, number, folder, environment = json.loads(data)
            with open(os.devnull) as nothing:
                os.dup2(nothing.fileno(), 0)
            for stream in (1, 2):
                os.dup2(log, stream)
            os.dup2(link, number)
            for file in {log, link} - {number}:
                os.close(file)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            Path("/proc/self/comm").write_text(NAME)
            sys.argv[:] = ["-c"]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(code, vars(sys.modules["__main__"]))
    finally:
        os._exit(1)
