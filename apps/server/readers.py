"""Connections by which threads read a database while another one writes it."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CACHE = 256  # KiB that a connection keeps of the file, which the system keeps in memory anyway


class Readers:
    """As many connections as are read by at once; each is one thread's at a time.

    Of one connection, reads of several threads share a transaction while they overlap: the later
    one does not see what was committed since the earlier one began.

    Args:
        connect: opens one, for any thread.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._open = connect
        self._lock = threading.Lock()
        self._idle = [self._connect()]
        self._closed = False

    def _connect(self) -> sqlite3.Connection:
        connection = self._open()
        connection.execute(f"PRAGMA cache_size=-{CACHE}")
        return connection

    @contextmanager
    def one(self) -> Iterator[sqlite3.Connection]:
        """A connection for one read, which has to be read to its end."""
        with self._lock:
            if self._closed:
                raise sqlite3.ProgrammingError("it is closed")
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        finally:
            with self._lock:
                if self._closed:
                    connection.close()
                else:
                    self._idle.append(connection)

    def close(self) -> None:
        """Close all of them; one that is in use, once it no longer is."""
        with self._lock:
            self._closed = True
            for connection in self._idle:
                connection.close()
            self._idle.clear()
