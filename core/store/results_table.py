"""`results.jsonl`: one line per input, written as the inputs get their records.

While batches run, lines are added in the order in which records come, whole and without a sync:
a run that is killed has its table, whose last line may be torn. When the last batch that runs has
ended, the table is written anew, in the order of batches and inputs.

The table holds the newest batch, and what ran beside it: when a batch begins, the lines of a
batch that has ended go, unless it ran beside one that is still running.

What a line says is not kept in memory, but where it stands: eight bytes for each input.
"""

import itertools
import json
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from core.errors import StorageError
from core.store.outputs import append, json_line, storage_error, write_atomically
from core.tasks import Result

FILE_NAME = "results.jsonl"
USUAL_LINE = 512  # bytes that are read at once
_NOWHERE = -1


@dataclass
class _Part:
    """One batch in the table.

    Attributes:
        places: where the line of each input begins in the file, by its place among the inputs.
        unwritten: what the file does not say, or not so, by the same.
        began, ended: when, on the clock of the table; `ended` is None while it runs.
    """

    began: int
    ended: int | None = None
    places: "array[int]" = field(default_factory=lambda: array("q"))
    unwritten: dict[int, Result] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.ended is None

    def place_of(self, position: int) -> int:
        return self.places[position] if position < len(self.places) else _NOWHERE

    def lies_at(self, position: int, place: int) -> None:
        """The line of an input begins there."""
        missing = position + 1 - len(self.places)
        if missing > 0:
            self.places.extend(itertools.repeat(_NOWHERE, missing))
        self.places[position] = place
        self.unwritten.pop(position, None)

    def positions(self) -> Iterator[int]:
        """Inputs that have a result, in their order."""
        more = max(self.unwritten, default=-1) + 1
        for position in range(max(len(self.places), more)):
            if self.place_of(position) != _NOWHERE or position in self.unwritten:
                yield position


class ResultsTable:
    """The table of one folder. Safe for several threads.

    Args:
        recorded: results of a batch that are recorded elsewhere, by its number. They stand in for
            lines that somebody else has made illegible, and say less.
    """

    def __init__(
        self, folder: Path, recorded: Callable[[int], Iterable[Result]] = lambda batch: ()
    ) -> None:
        self._file = folder / FILE_NAME
        self._recorded = recorded
        self._parts: dict[int, _Part] = {}
        self._clock = itertools.count()  # of beginnings and ends
        self._lines: BinaryIO | None = None  # the file, to be read; None: it is another run's
        self._size = 0  # of the file
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
            part = self._parts[batch] = _Part(next(self._clock))
            if running and not over:
                self._add(part, settled)
            else:
                part.unwritten = {result.position: result for result in settled}
                with suppress(StorageError):
                    self._write(sync=False)

    def add(self, batch: int, results: Sequence[Result]) -> None:
        """Add records of a running batch; lines that the disk refuses are written at its end.

        What the table says already is not said again. Where it says something else of an input, the
        line that is added counts, and the other one goes at the end.
        """
        with self._lock:
            part = self._parts.get(batch)
            if part is not None and part.running:
                self._add(part, results)

    def end(self, batch: int, results: Iterable[Result] = ()) -> None:
        """A batch has ended, and the table has all of its records in input order.

        Args:
            results: those that may not be in the table yet, or otherwise.

        Raises:
            StorageError: the disk refuses.
        """
        with self._lock:
            part = self._parts.setdefault(batch, _Part(next(self._clock)))
            part.ended = next(self._clock)
            alone = not any(other.running for other in self._parts.values())
            # First: so it has every line, should the disk refuse to replace it.
            changed = self._add(part, results)
            if alone or changed or part.unwritten:
                self._write(sync=alone)
            if alone:
                self._parts.clear()
                self._forget_file()

    def _add(self, part: _Part, results: Iterable[Result]) -> bool:
        """Add lines, or remember what they say; True if another line says otherwise of one."""
        new: dict[int, bytes] = {}
        changed = False
        for result in results:
            line = _line(result)
            if part.place_of(result.position) != _NOWHERE:
                with suppress(StorageError):  # an illegible one is written anew
                    if self._line_of(part, result.position) == line:
                        continue
                changed = True
            part.unwritten[result.position] = result
            new[result.position] = line
        with suppress(StorageError):
            self._append(part, new)
        return changed

    def _append(self, part: _Part, lines: dict[int, bytes]) -> None:
        if not lines:
            return
        if not self._is_ours():
            raise StorageError(f"{self._file}: it is still to be written.")
        append(self._file, lines.values(), sync=False)
        for position, line in lines.items():
            part.lies_at(position, self._size)
            self._size += len(line)

    def _is_ours(self) -> bool:
        """Whether the file is as this table left it."""
        if self._lines is None:
            return False
        try:
            found, own = os.stat(self._file), os.fstat(self._lines.fileno())
        except OSError:
            return False
        return os.path.samestat(found, own) and found.st_size == self._size

    def _write(self, sync: bool) -> None:
        """Write all lines anew, in the order of batches and inputs.

        Raises:
            StorageError: the disk refuses; or lines are lost, of which it has all others then.
        """
        places = {batch: array("q") for batch in self._parts}
        size = 0
        lost: StorageError | None = None

        def lines() -> Iterator[bytes]:
            nonlocal size, lost
            for batch, part in sorted(self._parts.items()):
                recorded: dict[int, Result] | None = None
                for position in part.positions():
                    try:
                        line = self._line_of(part, position)
                    except StorageError as error:
                        if recorded is None:
                            recorded = {r.position: r for r in self._recorded(batch)}
                        if position not in recorded:
                            lost = error
                            continue
                        line = _line(recorded[position])
                    found = places[batch]
                    found.extend(itertools.repeat(_NOWHERE, position - len(found)))
                    found.append(size)
                    size += len(line)
                    yield line

        write_atomically(self._file, lines(), sync)
        self._forget_file()
        for batch, part in self._parts.items():
            part.places, part.unwritten = places[batch], {}
        self._size = size
        try:
            self._lines = self._file.open("rb", buffering=0)
        except OSError as error:
            raise storage_error(error, self._file) from None
        if lost is not None:
            raise lost

    def _line_of(self, part: _Part, position: int) -> bytes:
        """What the table says of an input.

        Raises:
            StorageError: somebody else has changed the file.
        """
        if position in part.unwritten:
            return _line(part.unwritten[position])
        with suppress(OSError, ValueError, LookupError, TypeError):
            line = self._line_at(part.places[position])
            if json.loads(line)["position"] == position:
                return line
        raise StorageError(
            f"{self._file}: it was changed while the run wrote it, and lines of it are lost. "
            "Run again: what is finished is not drawn again, and has its line then."
        )

    def _line_at(self, place: int) -> bytes:
        if self._lines is None:
            return b""
        line = b""
        while not line.endswith(b"\n"):
            more = os.pread(self._lines.fileno(), USUAL_LINE, place + len(line))
            line += more[: more.find(b"\n") + 1] or more
            if not more:
                break
        return line

    def _forget_file(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None


def _line(result: Result) -> bytes:
    return json_line(result.as_dict())
