"""What main waits for: messages from workers, their deaths, and calls of other threads."""

import os
import sys
from collections.abc import Hashable
from contextlib import suppress
from io import FileIO
from selectors import EVENT_READ, DefaultSelector
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)
_ONCE = (1).to_bytes(8, sys.byteorder)


class Sources(Generic[W]):
    """Waits for many sources, of each of which it is told once.

    With 64 workers, to name all of them anew at every wait would take longer than to handle
    what comes.
    """

    def __init__(self) -> None:
        # Calls that come before they are heard count as one, so that none can have to wait.
        counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake = FileIO(counter, "r+")
        self._selector = DefaultSelector()
        self._selector.register(self._wake, EVENT_READ)
        self._messages: dict[W, int] = {}  # file descriptors by worker
        self._deaths: dict[W, int] = {}

    def add(self, worker: W, messages: int, death: int) -> None:
        """Watch the incarnation that was just started.

        Args:
            messages: file descriptor of the pipe from it.
            death: file descriptor that becomes readable when it ends.
        """
        for known, source, dies in (
            (self._messages, messages, False),
            (self._deaths, death, True),
        ):
            known[worker] = source
            self._selector.register(source, EVENT_READ, (worker, dies))

    def drop(self, worker: W) -> None:
        """Watch the incarnation no more; call it before its pipes are closed."""
        self.drop_messages(worker)
        if (sentinel := self._deaths.pop(worker, None)) is not None:
            self._selector.unregister(sentinel)

    def drop_messages(self, worker: W) -> None:
        """Stop reading a worker's messages; only its death is still to come."""
        if (messages := self._messages.pop(worker, None)) is not None:
            self._selector.unregister(messages)

    def wait(self, seconds: float) -> dict[W, bool]:
        """Workers that said something or died, and whether they died; ends early at `wake`."""
        found: dict[W, bool] = {}
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                with suppress(BlockingIOError):
                    self._wake.read(8)
            else:
                worker, dies = key.data
                found[worker] = dies or found.get(worker, False)
        return found

    def wake(self) -> None:
        """End a wait; from any thread, and from signal handlers."""
        with suppress(OSError, ValueError):  # closed
            self._wake.write(_ONCE)

    def close(self) -> None:
        self._selector.close()
        self._wake.close()
