"""A clock that is a number: an hour of thousands of GPUs passes as fast as it can be computed."""

import time

START = 1000.0


class VirtualTime:
    """Stands in for `time.monotonic` and `time.sleep` in this process.

    Modules that took these functions by name, as `threading` and `queue` do, keep the real ones.
    """

    def __init__(self) -> None:
        self.now = START

    def install(self) -> None:
        """Let the whole process live by this clock, until it ends."""
        time.monotonic = lambda: self.now
        time.sleep = self._pass  # type: ignore[assignment]

    def _pass(self, seconds: float) -> None:
        self.now += seconds
