"""What Ray sets a worker up by on nodes of a test cluster: `warm_ray_join.py SCRIPT ARGUMENTS`.

The worker is a fork of `tests.cluster.warm_ray`, with which this process begins and ends; its name
says which one. A worker with a Python or variables of its own is left to Ray's script.
"""

import json
import os
import socket
import sys

PLACE = "TEST_WARM_RAY"  # environment; as in warm_ray.py, which this process has no time to import
CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="
NAME = "fork "  # and the id, as the name of this process


def is_plain(context: str) -> bool:
    """Whether Ray's script would only run the worker's, as it is."""
    given = {name: value for name, value in json.loads(context or "{}").items() if value}
    return given in ({}, {"py_executable": sys.executable})


def main(line: list[str]) -> None:
    contexts = [word.removeprefix(CONTEXT) for word in line if word.startswith(CONTEXT)]
    if all(map(is_plain, contexts)) and PLACE in os.environ:
        plain = [word for word in line if not word.startswith((CONTEXT, LANGUAGE))]
        request = json.dumps([plain, os.getpgrp(), os.getcwd(), dict(os.environ)]).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            try:
                connection.connect(f"\0{os.environ[PLACE]}")
            except OSError:  # it has ended, or is of another network
                pass
            else:
                socket.send_fds(connection, [request], [0, 1, 2])
                pid = connection.recv(100).decode()
                with open("/proc/self/comm", "w") as name:
                    name.write(NAME + pid)
                while connection.recv(100):
                    pass
                return
    own = os.path.join(os.path.dirname(line[0]), "setup_worker.py")
    os.execv(sys.executable, [sys.executable, own, *line])


if __name__ == "__main__":
    main(sys.argv[1:])
