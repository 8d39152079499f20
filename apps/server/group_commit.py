"""One writer for a database: what is asked for at about the same time is committed together.

A commit waits for the disk. With a commit per request two hundred clients would wait for each
other; with one commit for all that came meanwhile each waits for two at most.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from core.errors import StorageError

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]
MOST_TOGETHER = 512
_Asked = tuple[Change[Any], "Future[Any]"]


class GroupCommit:
    """Runs changes of a database in the order in which they are handed in, in a thread of its own.

    Args:
        connection: in autocommit mode (`isolation_level=None`), used by this thread alone from
            now on, and closed at the end.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def do(self, change: Change[T]) -> "Future[T]":
        """Have a change made; the future has its value once it is on the disk.

        A change that raises leaves nothing behind, and the future has its exception; so it is
        with a StorageError where the disk refuses.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # who waits may go; what was asked for is done
        self._asked.put((change, future))
        return future

    def close(self) -> None:
        """Do what was asked for so far, then close the database."""
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            together, more = self._next()
            if together:
                self._commit(together)
        self._connection.close()

    def _next(self) -> tuple[list[_Asked], bool]:
        asked = self._asked.get()
        together: list[_Asked] = []
        while asked is not None:
            together.append(asked)
            if len(together) == MOST_TOGETHER or self._asked.empty():
                return together, True
            asked = self._asked.get()
        return together, False

    def _commit(self, together: list[_Asked]) -> None:
        made: list[tuple[Future[Any], Any]] = []
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            for change, future in together:
                run("SAVEPOINT one")
                try:
                    made.append((future, change(self._connection)))
                except sqlite3.Error:
                    raise
                except Exception as error:
                    run("ROLLBACK TO one")
                    future.set_exception(error)
                run("RELEASE one")
            run("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                run("ROLLBACK")
            refusal = StorageError(f"The queue cannot be written: {error}.", fatal=True)
            for _, future in together:
                if not future.done():
                    future.set_exception(refusal)
            return
        for future, value in made:
            future.set_result(value)
