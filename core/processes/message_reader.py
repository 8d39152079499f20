"""Reads whole messages from a pipe, without ever waiting for the rest of one."""

import os
import select
import struct
from multiprocessing.connection import Connection

_HEAD = struct.Struct("!i")  # as `multiprocessing.connection` writes it before a short message
_AT_ONCE = 64 * 1024  # bytes: what a pipe holds


class MessageReader:
    """Reads what a `Connection` of another process sent.

    `Connection.recv_bytes` waits for the rest of a message whose sender was stopped amid it, and
    takes several system calls for each message.

    Attributes:
        hung_up: nothing more will come.
    """

    def __init__(self, connection: Connection) -> None:
        self.hung_up = False
        self._pipe = connection.fileno()
        os.set_blocking(self._pipe, False)
        self._readable = select.poll()
        self._readable.register(self._pipe, select.POLLIN)
        self._rest = b""

    @property
    def has_more(self) -> bool:
        """Whether something came that was not read yet, if only the pipe's end."""
        return not self.hung_up and bool(self._readable.poll(0))

    def read(self) -> list[bytes]:
        """The messages that a pipe can hold at once, if they are whole."""
        try:
            data = os.read(self._pipe, _AT_ONCE)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.hung_up = True
            return []
        return self._whole(self._rest + data)

    def read_all(self) -> list[bytes]:
        """Read everything that a dead process sent."""
        messages = self.read()
        while self.has_more:
            messages += self.read()
        return messages

    def _whole(self, data: bytes) -> list[bytes]:
        messages, at = [], 0
        while len(data) - at >= _HEAD.size:
            (size,) = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + size
            if end > len(data):
                break
            messages.append(data[at + _HEAD.size : end])
            at = end
        self._rest = data[at:]
        return messages
