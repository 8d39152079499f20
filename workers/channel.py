"""A worker's two pipes: leases come in on one, messages go out on the other."""

import array
import fcntl
import os
import queue
import select
import termios
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from multiprocessing.connection import Connection

from core.fault_points import fault_point, send_half
from core.messages import MAX_NAME_BYTES, Log, ToMain, ToWorker, clip, decode, encode

PIPE_BUF = 4096  # bytes that Linux writes to a pipe whole or not at all

_at_work_on: ContextVar[str] = ContextVar("at_work_on", default="")


def work_on(tasks: Sequence[str]) -> None:
    """Name the tasks that what this thread logs from now on is about."""
    more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
    _at_work_on.set(clip(tasks[0], MAX_NAME_BYTES) + more if tasks else "")


def at_work_on() -> str:
    """The task that this thread is at work on, by name; empty while there is none."""
    return _at_work_on.get()


class Channel:
    """Synchronous sends from any thread of the worker, and a thread that receives.

    There is no feeder thread behind `send`: what it returned from has reached the pipe and
    survives the worker's death.
    """

    def __init__(self, reader: Connection, writer: Connection) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = threading.Lock()
        self._room = select.poll()
        self._room.register(writer, select.POLLOUT)
        self._inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin to receive; the worker ends the moment that main's end closes."""
        threading.Thread(target=self._receive, name="inbox", daemon=True).start()

    def _receive(self) -> None:
        while True:
            try:
                message = decode(self._reader.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # main is gone, and nobody will read what this worker makes
            self._inbox.put(message)

    def get(self) -> ToWorker:
        """The next message; blocks until there is one."""
        return self._inbox.get()

    def send(self, message: ToMain) -> None:
        data = encode(message)
        assert len(data) + 4 <= PIPE_BUF, f"{type(message).__name__} is {len(data)} bytes long"
        with self._lock:
            self._write(data)

    def offer(self, message: ToMain) -> bool:
        """Send what nobody misses, unless that might take time: then drop it, and return False."""
        if not self._lock.acquire(blocking=False):  # another thread sends, and may have to wait
            return False
        try:
            if self._main_is_behind():
                return False
            self._write(encode(message))
            return True
        finally:
            self._lock.release()

    def _main_is_behind(self) -> bool:
        """Whether main reads nothing now: room in the pipe is kept for messages that count."""
        unread = array.array("i", [0])  # bytes
        fcntl.ioctl(self._writer.fileno(), termios.FIONREAD, unread)
        return unread[0] > PIPE_BUF or not self._room.poll(0)

    def _write(self, data: bytes) -> None:
        fault_point("worker.mid-send", lambda: send_half(self._writer, data))
        try:
            self._writer.send_bytes(data)
        except OSError:
            os._exit(0)

    def log(self, level: str, text: str) -> None:
        """Let main log a line under this worker's name."""
        self.send(Log(level, clip(text), at_work_on()))
