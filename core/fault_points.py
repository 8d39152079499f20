"""Named points at which the chaos tests (`tests/chaos`) break a process; a no-op otherwise.

`FAULT_POINT=worker.mid-write:3` makes every process kill itself when it passes that point for
the third time and, if it lives on, at every later passage. A third part names another fault:
`kill` (the default), `stop` (SIGSTOP), `stuck` (a native call that holds the GIL for ever) or
`error` (an OSError).
`FAULT_TICKETS` names a folder: each fault takes a file out of it, and without one none happens.
"""

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

FAULT_POINT = "FAULT_POINT"  # environment
FAULT_TICKETS = "FAULT_TICKETS"  # environment

Tear = Callable[[], object]


def _no_fault(name: str, tear: Tear | None = None) -> None:
    """Say that this process is at the point `name`.

    Args:
        tear: leaves half done, just before the fault, what the point interrupts.
    """


class _Fault:
    """One armed point of this process."""

    def __init__(self, order: str, tickets: str) -> None:
        self._name, passage, *kind = order.split(":")
        self._passage = int(passage)
        self._break = _KINDS[kind[0] if kind else "kill"]
        self._tickets = Path(tickets)
        self._passed = count(1)

    def __call__(self, name: str, tear: Tear | None = None) -> None:
        if name == self._name and next(self._passed) >= self._passage and self._take_ticket():
            if tear is not None:
                tear()
            self._break()

    def _take_ticket(self) -> bool:
        for ticket in sorted(self._tickets.iterdir()):
            try:
                ticket.unlink()
            except FileNotFoundError:  # another process was faster
                continue
            return True
        return False


def send_half(pipe: Connection, data: bytes) -> None:
    """What a process that dies in the middle of `pipe.send_bytes(data)` may leave."""
    frame = struct.pack("!i", len(data)) + data
    os.write(pipe.fileno(), frame[: len(frame) // 2])


def hold_the_gil() -> None:
    """A native call that never returns and lets no other thread of this process run."""
    libc = ctypes.PyDLL(None)  # unlike CDLL, it keeps the GIL during a call
    while True:
        libc.pause()


def _raise_error() -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


_KINDS: dict[str, Callable[[], None]] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "stuck": hold_the_gil,
    "error": _raise_error,
}

fault_point: Callable[..., None] = _no_fault
if FAULT_POINT in os.environ:
    fault_point = _Fault(os.environ[FAULT_POINT], os.environ[FAULT_TICKETS])
