"""`enable_batch_sync`: workers start their next task together. What that costs is measured.

A barrier per step makes everybody wait for the slowest, which some studies want for
comparability and nobody needs for correctness. Off by default.
"""

import time
from collections.abc import Callable


class Barrier:
    """Lets each worker start once per step; the next step begins when nobody works."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._had_turn: set[str] = set()
        self._waiting_since: dict[str, float] = {}
        self.waited = 0.0  # worker-seconds so far
        self.steps = 0

    def may_start(self, worker: str, busy: frozenset[str]) -> bool:
        """Whether `worker`, which is idle, may take its next task now.

        Args:
            busy: the workers that have a task.
        """
        if worker not in self._had_turn:
            return True
        if busy:
            self._waiting_since.setdefault(worker, self._clock())
            return False
        self._had_turn.clear()
        return True

    def started(self, worker: str) -> None:
        """Note that `worker` took a task."""
        self.steps += not self._had_turn
        self._had_turn.add(worker)
        since = self._waiting_since.pop(worker, None)
        if since is not None:
            self.waited += self._clock() - since
