"""Counts a picture's steps where every pipeline of diffusers shows them.

That is its progress bar, which all of them have, unlike `callback_on_step_end`; to count there
touches no tensor, nothing that is compiled, and no argument of the call. A GPU may be some
steps behind the count, because whoever waited for it would slow it down.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from core.messages import Lease, StepsDone

TellSteps = Callable[[int, int], None]
"""Told the steps that are done, and all of them."""

SECONDS_BETWEEN = 0.5  # of two messages, and before the first one of a task


class StepReporter:
    """Passes on the steps of the running task: rarely, and only where nobody has to wait."""

    def __init__(self, offer: Callable[[StepsDone], bool]) -> None:
        """
        Args:
            offer: sends a message, or drops it if that would take time.
        """
        self._offer = offer
        self._lease_id = ""
        self._told = 0.0  # monotonic time

    def begin(self, leases: Sequence[Lease]) -> None:
        """Note which leases are drawn from now on, together."""
        self._lease_id = leases[0].lease_id
        self._told = time.monotonic()

    def tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN:
            self._told = now
            self._offer(StepsDone(self._lease_id, done, total))


def count_steps(pipeline: Any, tell: TellSteps) -> None:
    """Make a pipeline's progress bar show nothing, and tell its steps instead."""

    def progress_bar(iterable: Iterable[Any] | None = None, total: int | None = None) -> _Steps:
        return _Steps(iterable, total, tell)

    pipeline.progress_bar = progress_bar


class _Steps:
    """A stand-in for a tqdm bar, with what pipelines use of one."""

    def __init__(self, iterable: Iterable[Any] | None, total: int | None, tell: TellSteps) -> None:
        self._iterable = iterable
        length = getattr(iterable, "__len__", None)
        self._total = total if total is not None or length is None else length()
        self._done = 0
        self._tell = tell

    def update(self, steps: int = 1) -> None:
        self._done += steps
        if self._total:
            self._tell(min(self._done, self._total), self._total)

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable or ():
            yield item
            self.update()

    def __enter__(self) -> "_Steps":
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        """Do nothing: whatever else a bar can do is about showing it."""
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *_, **__: None
