"""Threads that wait for a daemon's answers, so that nobody else has to."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from loguru import logger


class Helpers:
    """A few threads that do what they are given. Unlike an executor's, no exit waits for them."""

    def __init__(self, count: int) -> None:
        self._given: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._count = count
        self._threads: list[threading.Thread] = []

    def give(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have a call made; it answers by itself."""
        if not self._threads:
            for _ in range(self._count):
                thread = threading.Thread(target=self._serve, name="fetcher", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._given.put(lambda: call(*arguments))

    def end(self, patience: float) -> None:
        """Do what was given so far, as far as it takes no longer than so many seconds."""
        end = time.monotonic() + patience
        for _ in self._threads:
            self._given.put(None)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _serve(self) -> None:
        while (call := self._given.get()) is not None:
            try:
                call()
            except Exception:
                logger.exception("A call to the server failed; this is a defect.")
