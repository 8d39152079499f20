"""Claims of a folder's batches on their outputs, so that no two batches write one file.

Names that batches give by themselves are numbered here, too: two batches never get one number.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """The batch and the task that have an output already.

    Attributes:
        position: the place of its task in its batch.
        batch: another batch, as users know it; None for the batch that asks.
    """

    position: int
    batch: str | None


class Claims:
    """The outputs of one folder that unfinished batches work on. Safe for several threads."""

    def __init__(self) -> None:
        # A claim is given up, too, while the collector drops a batch, in whichever thread.
        self._lock = threading.RLock()
        self._holders: dict[str, weakref.ref[BatchClaims]] = {}
        self._growing: weakref.WeakSet[BatchClaims] = weakref.WeakSet()
        self._numbered = 0

    def begin(self, name: str = "another batch") -> "BatchClaims":
        """The claims of a new batch.

        Args:
            name: what other batches' users are told that has an output: `job 3`.
        """
        return BatchClaims(self, name)

    def reserve_numbers(self, count: int) -> int:
        """The first of `count` numbers in a row that no other batch gets, from 0."""
        with self._lock:
            first = self._numbered
            self._numbered += count
            return first

    @property
    def numbered(self) -> int:
        """How many numbers are reserved: the next that a batch gets."""
        return self._numbered

    def take(self, key: str, holder: "weakref.ref[BatchClaims]") -> "BatchClaims | None":
        """Claim an output for a batch; returns the other batch that has it, if one does."""
        with self._lock:
            known = self._holders.setdefault(key, holder)
            other = known() if known is not holder else None
            if other is None:
                self._holders[key] = holder
            return other

    def grows(self, batch: "BatchClaims", goes_on: bool) -> None:
        """Note whether a batch will claim more outputs."""
        with self._lock:
            if goes_on:
                self._growing.add(batch)
            else:
                self._growing.discard(batch)

    def growing_beside(self, batch: "BatchClaims") -> "list[BatchClaims]":
        """Other batches that will claim more outputs."""
        with self._lock:
            return [other for other in self._growing if other is not batch]

    def release(self, key: str, holder: "weakref.ref[BatchClaims]") -> None:
        """Free an output, if that batch has it."""
        with self._lock:
            if self._holders.get(key) is holder:
                del self._holders[key]


class BatchClaims:
    """The outputs of one batch. A batch that nobody holds any more holds no output either."""

    def __init__(self, folder: Claims, name: str) -> None:
        self.name = name
        self._folder = folder
        # And of outputs that were given up, where nothing records them or another batch has them.
        self._positions: dict[str, int] = {}
        self._recorded: Callable[[str], int | None] | None = None
        self._me = weakref.ref(self)
        weakref.finalize(self, _release_all, folder, self._positions, self._me).atexit = False

    def recorded_by(self, position_of: Callable[[str], int | None]) -> None:
        """Ask a record for the places of tasks whose outputs are given up, and do not keep them.

        Args:
            position_of: the place in this batch of the task that was recorded for an output.
        """
        self._recorded = position_of

    def continues(self) -> None:
        """More outputs will be claimed, while other batches may claim those that are given up."""
        self._folder.grows(self, True)

    def take(self, key: str, position: int) -> Claim | None:
        """Claim an output for the task at `position`; returns who has it already, if somebody has.

        Within its batch an output is one task's for ever. Another batch has it until it gives it
        up.
        """
        own = self._positions.get(key)
        if own is None and self._recorded is not None:
            own = self._recorded(key)
        if own not in (None, position):
            return Claim(own, None)
        self._positions[key] = position  # first: who meets the claim asks for it
        other = self._folder.take(key, self._me)
        if other is None:
            for growing in self._folder.growing_beside(self):
                growing._loses(key)
            return None
        del self._positions[key]
        return Claim(other.position_of(key), other.name)

    def _loses(self, key: str) -> None:
        """Remember whose an output was that another batch claims: the record will say it no more.

        Not under the lock of `Claims`: the record has one of its own.
        """
        if self._recorded is not None and (place := self._recorded(key)) is not None:
            self._positions.setdefault(key, place)

    def position_of(self, key: str) -> int:
        """The place of the task that an output was claimed for."""
        found = self._positions.get(key)
        if found is None and self._recorded is not None:  # it was given up just now
            found = self._recorded(key)
        return found or 0

    def release(self, key: str) -> None:
        """Free an output for other batches: its task has its record, or will not be tried."""
        self._folder.release(key, self._me)
        if self._recorded is not None:
            self._positions.pop(key, None)

    def release_all(self) -> None:
        """Free all outputs: the batch has ended."""
        self._folder.grows(self, False)
        _release_all(self._folder, self._positions, self._me)


def _release_all(
    folder: Claims, positions: dict[str, int], holder: "weakref.ref[BatchClaims]"
) -> None:
    for key in list(positions):
        folder.release(key, holder)
