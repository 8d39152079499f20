"""Forks for others: each becomes what it is asked for.

Whoever asks sends a request with files and is told the fork's id; its connection is closed when the
fork has ended.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

REQUEST = 1 << 20  # bytes
FILES = 3


@contextmanager
def importing() -> Iterator[None]:
    """Import a tenth sooner, and so that forks of this process share what was imported."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()
    gc.freeze()


def serve(listener: socket.socket, together: bool = False) -> tuple[list[Any], list[int]]:
    """Fork for whoever asks, until standard input ends.

    Args:
        together: a fork is killed where whoever has asked for it ends.

    Returns:
        In a fork: its request, and the files that came with it.
    """
    running: dict[int, tuple[int, socket.socket]] = {}  # by a descriptor of the process
    while True:
        asking = {connection: pid for pid, connection in running.values()} if together else {}
        waited_for: list[Any] = [sys.__stdin__, listener, *running, *asking]
        for ready in select.select(waited_for, [], [])[0]:
            if ready is sys.__stdin__:
                sys.exit()
            if ready in asking:  # it has nothing to say: that is its end
                with suppress(OSError):
                    os.kill(asking[ready], signal.SIGKILL)
            elif ready in running:
                pid, connection = running.pop(ready)
                os.close(ready)
                os.waitpid(pid, 0)
                connection.close()
            else:
                connection = listener.accept()[0]
                data, files, _, _ = socket.recv_fds(connection, REQUEST, FILES)
                if not data:
                    connection.close()
                elif pid := os.fork():
                    for file in files:
                        os.close(file)
                    running[os.pidfd_open(pid)] = pid, connection
                    with suppress(OSError):
                        connection.send(str(pid).encode())
                else:
                    listener.close()
                    for descriptor, (_, other) in running.items():
                        os.close(descriptor)
                        other.close()
                    connection.close()
                    return json.loads(data), list(files)
