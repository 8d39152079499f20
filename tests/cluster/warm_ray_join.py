"""What starts processes of nodes of a test cluster: `warm_ray_join.py SCRIPT ARGUMENTS`.

Ray runs it to set a worker up, and in place of Python for its own agents of a node. The process is
a fork of `tests.cluster.warm_ray`, with which this one begins and ends; this one's name says which
one. A worker with a Python or variables of its own is left to Ray's script.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence

PLACE = "TEST_WARM_RAY"  # environment: of a cluster, where its workers' process listens
AGENTS = "-agents"  # ends where its agents' process listens
AGENT_SCRIPTS = ("dashboard/agent.py", "runtime_env/agent/main.py")
CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="
NAME = "fork "  # and the id, as the name of this process
LOOK = 1.0  # seconds between looks whether an agent's node is there


def is_of_an_agent(line: Sequence[str]) -> bool:
    """Whether a script and its arguments are those of one of Ray's agents."""
    return line[0].endswith(AGENT_SCRIPTS)


def is_plain(context: str) -> bool:
    """Whether Ray's script would only run the worker's, as it is."""
    given = {name: value for name, value in json.loads(context or "{}").items() if value}
    return given in ({}, {"py_executable": sys.executable})


def main(line: list[str]) -> None:
    contexts = [word.removeprefix(CONTEXT) for word in line if word.startswith(CONTEXT)]
    is_agent = is_of_an_agent(line)
    if all(map(is_plain, contexts)) and PLACE in os.environ:
        plain = [word for word in line if not word.startswith((CONTEXT, LANGUAGE))]
        request = json.dumps([plain, os.getpgrp(), os.getcwd(), dict(os.environ)]).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            try:
                connection.connect(f"\0{os.environ[PLACE]}{AGENTS * is_agent}")
            except OSError:  # it has ended, or is of another network
                pass
            else:
                socket.send_fds(connection, [request], [0, 1, 2])
                pid = connection.recv(100).decode()
                with open("/proc/self/comm", "w") as name:
                    name.write(NAME + pid)
                _wait(connection, os.getppid() if is_agent else None)
                return
    set_up_by = [os.path.join(os.path.dirname(line[0]), "setup_worker.py")]
    own = ["-u"] if is_agent else set_up_by
    os.execv(sys.executable, [sys.executable, *own, *line])


def _wait(connection: socket.socket, node: "int | None") -> None:
    """Wait for the fork's end, and for that of the node if it does not end its agents itself."""
    connection.settimeout(None if node is None else LOOK)
    while node in (None, os.getppid()):
        try:
            if not connection.recv(100):
                return
        except TimeoutError:
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
