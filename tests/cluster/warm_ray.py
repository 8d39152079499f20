"""The process that workers of a test cluster's nodes are forks of: `warm_ray LISTENER`.

It has imported what an agent needs, without Ray itself, which reads its job from the environment as
it is imported: a fork needs a fourth of the CPU time of a worker from the start. It has one thread,
the environment of its cluster, and ends with whoever has started that.
"""

import gc
import os
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests import births, late_environment, warm_fork_server
from tests.forks_on_demand import serve
from tests.quick_exit import run_and_exit

PROJECT = Path(__file__).resolve().parent.parent.parent
PLACE = "TEST_WARM_RAY"  # environment: of a cluster, where its workers' process listens
SET_UP_BY = PROJECT / "tests" / "cluster" / "warm_ray_join.py"  # in place of Ray's script
NEEDED = ("ray._private.workers.default_worker", "cluster.agent")
IMPORTED = ("multiprocessing.popen_forkserver", *births.SIMULATED)


def environment(cluster: str) -> dict[str, str]:
    """Of a node whose workers are forks of the process that `start` starts."""
    return {PLACE: f"tests-ray-{cluster}"}


def start(cluster: str) -> "subprocess.Popen[bytes]":
    """Start it for a cluster, with this process's environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{environment(cluster)[PLACE]}")  # of no file system
        listener.listen()
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.warm_ray", str(listener.fileno())],
            cwd=PROJECT,
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,  # which ends with this process
        )


def _become(
    line: Sequence[str],
    group: int,
    folder: str,
    environment: dict[str, str],
    stdin: int,
    stdout: int,
    stderr: int,
) -> types.CodeType:
    """Look as Ray's worker does that runs a script with arguments; returns what it runs."""
    os.setpgid(0, group)  # which the node kills with its worker
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warm_fork_server.keep_ready("simulated", not_for_it=(stdin, stdout, stderr))
    os.environ.clear()
    os.environ.update(environment)
    late_environment.read_again()
    os.chdir(folder)
    for number, file in enumerate((stdin, stdout, stderr)):
        os.dup2(file, number)
        os.close(file)
    sys.argv[:] = line
    script = Path(line[0])
    sys.path[0] = str(script.parent)
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    sys.modules["__main__"] = main
    return compile(script.read_bytes(), script, "exec")


def _needed_without_ray() -> list[str]:
    """What is imported with `NEEDED`: a fork tries it. Ray, and what imports it, is left out."""
    reader, writer = os.pipe()
    if not os.fork():
        for name in NEEDED:
            __import__(name)
        os.write(writer, " ".join(sys.modules).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as told:
        names = told.read().split()
    os.wait()
    return [name for name in names if name.partition(".")[0] not in ("ray", "cluster")]


def main(listener: int) -> None:
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the tests
    gc.disable()  # while importing: a tenth sooner
    for name in (*IMPORTED, *_needed_without_ray()):
        with suppress(ImportError):  # Ray brings some of its own
            __import__(name)
    assert "ray" not in sys.modules
    gc.enable()
    gc.collect()
    gc.freeze()
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads: forks of this process may hang"
    request, files = serve(socket.socket(fileno=listener), together=True)
    code = _become(*request, *files)
    run_and_exit(lambda: exec(code, sys.modules["__main__"].__dict__))


if __name__ == "__main__":
    main(int(sys.argv[1]))
