"""The processes that those of a test cluster's nodes are forks of: `warm_ray WORKERS AGENTS`.

The first has imported what a worker needs, without Ray itself, which reads its job from the
environment as it is imported: a fork needs a fourth of the CPU time of a worker from the start. A
child of it has imported all that Ray's own agents of a node need. Both have one thread, the
environment of their cluster, and end with whoever has started the first.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import births, late_environment, warm_fork_server
from tests.cluster.warm_ray_join import AGENTS, PLACE, is_of_an_agent
from tests.forks_on_demand import importing, serve
from tests.quick_exit import run_and_exit

PROJECT = Path(__file__).resolve().parent.parent.parent
BY_WORKERS = ("ray._private.workers.default_worker", "cluster.agent")
IMPORTED = ("multiprocessing.popen_forkserver", *births.SIMULATED)
BY_AGENTS = ("ray.dashboard.agent", "ray._private.runtime_env.agent.main")


def environment(cluster: str) -> dict[str, str]:
    """Of a node whose processes are forks of those that `start` starts."""
    return {PLACE: f"tests-ray-{cluster}"}


def start(cluster: str) -> "subprocess.Popen[bytes]":
    """Start them for a cluster, with this process's environment."""
    place = environment(cluster)[PLACE]
    with _listening(place) as workers, _listening(place + AGENTS) as agents:
        files = [workers.fileno(), agents.fileno()]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.warm_ray", *map(str, files)],
            cwd=PROJECT,
            pass_fds=files,
            stdin=subprocess.PIPE,  # which ends with this process
        )


@contextmanager
def _listening(place: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{place}")  # of no file system
        listener.listen()
        yield listener


def _become(
    line: Sequence[str],
    group: int,
    folder: str,
    environment: dict[str, str],
    stdin: int,
    stdout: int,
    stderr: int,
) -> types.CodeType:
    """Look as Ray's process does that runs a script with arguments; returns what it runs."""
    os.setpgid(0, group)  # which the node kills with its worker
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not is_of_an_agent(line):
        warm_fork_server.keep_ready("simulated", not_for_it=(stdin, stdout, stderr))
    os.environ.clear()
    os.environ.update(environment)
    if is_of_an_agent(line):
        os.environ["RAY_RAYLET_PID"] = str(os.getppid())  # it ends where that is not its parent
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


@contextmanager
def _importing() -> Iterator[None]:
    with importing():
        yield
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads: forks of this process may hang"


def _import_all(tell: int) -> None:
    """Import Ray, and tell first what workers have imported then."""
    for name in BY_WORKERS:
        __import__(name)
    with open(tell, "w") as telling:
        telling.write(" ".join(sys.modules))
    for name in BY_AGENTS:
        __import__(name)
    from ray.dashboard import utils

    logging.disable(logging.INFO)  # what it says of modules that need other packages
    utils.get_all_modules(utils.DashboardAgentModule)
    logging.disable(logging.NOTSET)


def _import_without_ray(told: int) -> None:
    """Import what was told, but for Ray and what imports it."""
    with open(told) as telling:
        names = telling.read().split()
    for name in [*IMPORTED, *names]:
        if name.partition(".")[0] not in ("ray", "cluster"):
            with suppress(ImportError):  # Ray brings some of its own
                __import__(name)
    assert "ray" not in sys.modules


def main(workers: int, agents: int) -> None:
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the tests
    told, tell = os.pipe()
    has_ray = not os.fork()
    listener, other = (agents, workers) if has_ray else (workers, agents)
    os.close(other)
    os.close(told if has_ray else tell)
    with _importing():
        if has_ray:
            _import_all(tell)
        else:
            _import_without_ray(told)
    request, files = serve(socket.socket(fileno=listener), together=True)
    code = _become(*request, *files)
    run_and_exit(lambda: exec(code, sys.modules["__main__"].__dict__))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
