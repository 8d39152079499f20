"""`results.jsonl`: one line per input, written as the inputs get their records.

While batches run, lines are added in the order in which records come, whole and without a sync:
a run that is killed has its table, whose last line may be torn. When the last batch that runs has
ended, the table is written anew, in the order of batches and inputs.

The table holds the newest batch, and what ran beside it: when a batch begins, the lines of a
batch that has ended go, unless it ran beside one that is still running.
"""

import itertools
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import StorageError
from core.store.outputs import append, json_lines, write_atomically
from core.tasks import Result

FILE_NAME = "results.jsonl"


@dataclass
class _Part:
    """One batch in the table.

    Attributes:
        results: by the place of their input.
        began, ended: when, on the clock of the table; `ended` is None while it runs.
    """

    results: dict[int, Result]
    began: int
    ended: int | None = None

    @property
    def running(self) -> bool:
        return self.ended is None


class ResultsTable:
    """The table of one folder. Safe for several threads."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME
        self._parts: dict[int, _Part] = {}
        self._clock = itertools.count()  # of beginnings and ends
        self._is_ours = False  # the file: what is there before is another run's
        self._lock = threading.RLock()  # a signal handler may end what it interrupts

    def begin(self, batch: int, settled: Iterable[Result]) -> None:
        """Begin with a batch and what is known of it before anything runs.

        A disk that refuses is met again by `end`.
        """
        with self._lock:
            running = [part.began for part in self._parts.values() if part.running]
            # What ended before any of these began ran beside none of them.
            oldest = min(running, default=next(self._clock))
            over = [n for n, p in self._parts.items() if p.ended is not None and p.ended < oldest]
            for number in over:
                del self._parts[number]
            part = _Part({result.position: result for result in settled}, next(self._clock))
            self._parts[batch] = part
            with suppress(StorageError):
                if running and not over:
                    self._append(part.results.values())
                else:
                    self._write(sync=False)

    def add(self, batch: int, results: Sequence[Result]) -> None:
        """Add records of a running batch; lines that the disk refuses are written at its end."""
        with self._lock:
            part = self._parts.get(batch)
            if part is not None and part.running:
                part.results |= {result.position: result for result in results}
                with suppress(StorageError):
                    self._append(results)

    def end(self, batch: int, results: Sequence[Result]) -> None:
        """All records of a batch that has ended, in input order.

        Raises:
            StorageError: the disk refuses.
        """
        with self._lock:
            part = self._parts.setdefault(batch, _Part({}, next(self._clock)))
            before, part.ended = part.results, next(self._clock)
            part.results = {result.position: result for result in results}
            alone = not any(other.running for other in self._parts.values())
            anew = alone or any(before.get(r.position, r) != r for r in results)
            try:  # first: so it has every line, should the disk refuse to replace it
                self._append([r for r in results if r.position not in before])
            except StorageError:
                anew = True
            if anew:
                self._write(sync=alone)
            if alone:
                self._parts.clear()

    def _append(self, results: Iterable[Result]) -> None:
        if not self._is_ours:
            raise StorageError(f"{self._file}: it is still to be written.")
        lines = json_lines(result.as_dict() for result in results)
        if lines:
            append(self._file, lines, sync=False)

    def _write(self, sync: bool) -> None:
        ordered = (
            self._parts[batch].results[position].as_dict()
            for batch in sorted(self._parts)
            for position in sorted(self._parts[batch].results)
        )
        self._is_ours = False
        write_atomically(self._file, json_lines(ordered), sync)
        self._is_ours = True
