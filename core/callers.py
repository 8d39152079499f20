"""Threads that are inside a call of an object that one of them may want to end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Callers:
    """Threads that are inside a call; whoever stops the generator waits for the others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}  # calls by thread: a signal handler interrupts its own

    @contextmanager
    def inside(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                self._changed.notify_all()

    def wait_for_others(self, timeout: float) -> bool:
        """Wait until no other thread is inside; False if one still is."""
        me = threading.get_ident()

        def alone() -> bool:
            return not self._inside.keys() - {me}

        with self._changed:
            return self._changed.wait_for(alone, timeout)
