"""An event loop for which time passes while it waits, and while it does nothing else.

Where all that takes part in a test runs in one loop, limits of time are met or missed there by what
the test does, and never because the machine had something else to do.
"""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Counts the seconds for which it was asked to wait, and waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        found = super().select(timeout)
        passed = time.monotonic() - began
        self.waited += passed if timeout is None else min(passed, max(0.0, timeout))
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._own = _Selector()
        super().__init__(self._own)

    def time(self) -> float:
        return self._own.waited


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in such a loop."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(coroutine)
