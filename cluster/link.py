"""A connection on which nobody who sends has to wait for whoever reads."""

import pickle
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

MOST_AT_ONCE = 200  # messages in one write


class Link:
    """Sends and receives messages of one side of a socket, each with a thread of its own.

    Args:
        connection: to the other side.
        receive: called with each message, in the receiving thread.
        on_end: called there once, when the other side is gone, or one was not understood.
    """

    def __init__(
        self,
        connection: Connection,
        receive: Callable[[Any], None],
        on_end: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._receive = receive
        self._on_end = on_end
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=run, name=f"cluster-{name}", daemon=True)
            for name, run in (("sender", self._send_all), ("receiver", self._receive_all))
        ]

    def start(self) -> None:
        """
        Raises:
            RuntimeError: there can be no more threads.
        """
        for thread in self._threads:
            thread.start()

    def send(self, message: Any) -> None:
        """Send a message, some time; it is lost where the other side is gone."""
        self._outbox.put(message)

    def hang_up(self) -> None:
        """Send what was to be sent, and then nothing more."""
        self._outbox.put(None)

    def close(self) -> None:
        """Hang up and wait for the other side's end, which makes `on_end` come."""
        self.hang_up()
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join()
        self._connection.close()

    def _send_all(self) -> None:
        try:
            self._send_until_hung_up()
        except BaseException:  # nobody would be told anything any more: have the receiver end
            with suppress(OSError):
                _shut_down(self._connection, socket.SHUT_RDWR)
            raise
        with suppress(OSError):
            _shut_down(self._connection, socket.SHUT_WR)

    def _send_until_hung_up(self) -> None:
        open_ = True
        while open_:
            messages = [self._outbox.get()]
            with suppress(queue.Empty):
                while len(messages) < MOST_AT_ONCE:
                    messages.append(self._outbox.get_nowait())
            open_ = None not in messages
            with suppress(OSError):
                self._connection.send_bytes(pickle.dumps([m for m in messages if m is not None]))

    def _receive_all(self) -> None:
        try:
            with suppress(OSError, EOFError):
                while True:
                    for message in pickle.loads(self._connection.recv_bytes()):
                        self._receive(message)
        finally:
            self._on_end()


def _shut_down(connection: Connection, how: int) -> None:
    """Tell the other side that nothing more comes; with `SHUT_WR` what it says is still read."""
    with socket.socket(fileno=connection.fileno()) as own:
        try:
            own.shutdown(how)
        finally:
            own.detach()
