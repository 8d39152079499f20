"""A caller's handle to a batch of tasks that an engine works on."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from core.errors import LedgerError, StorageError
from core.tasks import Result, Status, in_input_order

INTERRUPTED = "Not tried: the run was interrupted."
INTERRUPTED_AT_ONCE = "Not finished: the run was interrupted."
CANCELLED = "Not tried: the job was cancelled."
CANCELLED_AT_ONCE = "Not finished: the job was cancelled."
AT_ONCE_REASONS = (INTERRUPTED_AT_ONCE, CANCELLED_AT_ONCE)


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        total: tasks of the job, those included that were settled before it began.
        running: tasks that a worker has.
        waiting: tasks that wait for a worker, or to be recorded.
        ended: tasks with their result, by status.
    """

    total: int
    running: int
    waiting: int
    ended: Counter[Status]


class Job:
    """Tasks on their way to one result each. Every method may be called from any thread.

    A job is finished when each of its tasks has its result; what becomes of one job leaves the
    workers and all other jobs alone::

        job = generator.submit(tasks)
        for result in job.as_completed():
            print(result.task_id, result.status)

    In asynchronous code `async for result in job` gives results as they come, and `await job`
    all of them in input order.

    Attributes:
        ends_as: the result of tasks that are not tried any more, once it ends early.
        records_error: why the tables of the output folder could not be written at its end.
        closed_as: status and error of its tasks without another result, once it was closed.

    Args:
        number: of the job in its engine, from 1.
        stop: has none of its waiting tasks started any more, for a reason.
        close: gives every open task a status and a reason now.
        settled: results known before the start: refused inputs, pictures already there.
        told: takes each later result, in the engine's thread, and must not raise; the job keeps no
            result then, and counts them only.
    """

    def __init__(
        self,
        number: int,
        stop: Callable[[int, str], None],
        close: Callable[[int, Status, str], None],
        settled: Sequence[Result] = (),
        told: Callable[[Result], None] | None = None,
    ) -> None:
        self.number = number
        self._told = told
        self._stop = stop
        self._close = close
        self._changed = threading.Condition()
        # In the order in which they came; none where somebody else takes them.
        self._results = list(settled) if told is None else []
        self._ended: Counter[Status] = Counter(result.status for result in settled)
        self._open = 0
        self._promised = 0
        self.ends_as: tuple[Status, str] | None = None
        self._running = 0
        self._finished = threading.Event()
        self.records_error: StorageError | LedgerError | None = None
        self.closed_as: tuple[Status, str] | None = None
        self._watchers: list[Callable[[], None]] = []

    # -- for callers ---------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Every task has its result."""
        return self._finished.is_set()

    @property
    def progress(self) -> Progress:
        """How far the job is at this moment."""
        with self._changed:
            total = self._ended.total() + self._open + self._promised
            running = min(self._running, self._open)
            waiting = self._open + self._promised - running
            return Progress(total, running, waiting, Counter(self._ended))

    @property
    def keeps_results(self) -> bool:
        """The job's results are there until it is let go of; else they were handed out."""
        return self._told is None

    @property
    def ended(self) -> Counter[Status]:
        """How many tasks have ended, by status."""
        with self._changed:
            return Counter(self._ended)

    @property
    def waiting(self) -> int:
        """How many tasks wait for a worker, of those that have come."""
        with self._changed:
            return self._open - min(self._running, self._open)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the job is finished; False after `timeout` seconds."""
        return self._finished.wait(timeout)

    def results(self, timeout: float | None = None) -> list[Result]:
        """One result per task, in input order, once the job is finished.

        Raises:
            TimeoutError: it is not finished within `timeout` seconds; it goes on.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"The job is not finished after {timeout:g} s.")
        return self.results_so_far()

    def results_so_far(self) -> list[Result]:
        """The results that are there, in input order."""
        with self._changed:
            return in_input_order(self._results)

    def as_completed(self, timeout: float | None = None) -> Iterator[Result]:
        """Each result as soon as it is there; those that are there already come first.

        Raises:
            TimeoutError: not all have come within `timeout` seconds; the job goes on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        given = 0
        while True:
            with self._changed:
                while given == len(self._results) and not self.finished:
                    left = None if end is None else end - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError(f"The job is not finished after {timeout:g} s.")
                    self._changed.wait(left)
                new = self._results[given:]
            if not new:
                return
            given += len(new)
            yield from new

    def cancel(self, at_once: bool = False) -> None:
        """End the job early: tasks that wait are closed, those that run are finished and kept.

        Args:
            at_once: close those that run, too; what their workers bring is thrown away.
        """
        self._end(at_once, CANCELLED, CANCELLED_AT_ONCE)

    def interrupt(self, at_once: bool = False) -> None:
        """Like `cancel`, as a part of a run that its user ends early; safe in a signal handler."""
        self._end(at_once, INTERRUPTED, INTERRUPTED_AT_ONCE)

    def _end(self, at_once: bool, not_tried: str, not_finished: str) -> None:
        if at_once:
            self._close(self.number, "interrupted", not_finished)
        else:
            self._stop(self.number, not_tried)

    def close(self, status: Status, reason: str) -> None:
        """Give every open task this result now; what its workers bring is thrown away."""
        self._close(self.number, status, reason)

    def __await__(self) -> Generator[Any, None, list[Result]]:
        return self._all().__await__()

    async def _all(self) -> list[Result]:
        async for _ in self:
            pass
        return self.results()

    async def __aiter__(self) -> AsyncIterator[Result]:
        async for portion in self.portions():
            for result in portion:
                yield result

    async def portions(self) -> AsyncIterator[list[Result]]:
        """Results as they come, those together that came since the last look."""
        loop, come = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:  # must not name itself: that would keep the job until garbage is sought
            with suppress(RuntimeError):  # the loop was closed in the middle of a job
                loop.call_soon_threadsafe(come.set)

        with self._changed:
            self._watchers.append(tell)
        try:
            given = 0
            while True:
                come.clear()
                with self._changed:
                    new, finished = self._results[given:], self.finished
                if new:
                    given += len(new)
                    yield new
                elif finished:
                    return
                else:
                    await come.wait()
        finally:
            with self._changed:
                self._watchers.remove(tell)

    # -- for the engine ------------------------------------------------------

    def promise(self, count: int) -> None:
        """So many tasks more will come, whatever becomes of the job; then it will be sealed."""
        with self._changed:
            self._promised += count

    @property
    def promised(self) -> int:
        """How many of the promised tasks have not come yet."""
        return self._promised

    def admit(self, count: int) -> None:
        """Count tasks that are about to be added to the job."""
        with self._changed:
            self._promised = max(0, self._promised - count)
            self._open += count

    def began(self) -> None:
        """A task was given to a worker."""
        with self._changed:
            self._running += 1

    def returned(self) -> None:
        """A task that a worker had waits again, or has its result."""
        with self._changed:
            self._running -= 1

    def settle(self, result: Result) -> None:
        """A task has its result."""
        if self._told is not None:
            self._told(result)
        with self._changed:
            self._open -= 1
            if self._told is None:
                self._results.append(result)
            self._ended[result.status] += 1
            self._tell()

    def finish(self) -> None:
        """Every task has its result, and no more will come."""
        with self._changed:
            self._finished.set()
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        for watcher in list(self._watchers):
            watcher()
