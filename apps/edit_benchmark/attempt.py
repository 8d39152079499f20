"""One edit of a pair: pairs may have several, of different seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.edit_benchmark.pair import Pair
from core.seeds import seed_of_task

SCORES = "scores"  # the folder of verdicts on first edits
SEED_STEP = 1_000_003  # between edits of one pair; a prime, so that few pairs ever share a seed


@dataclass(frozen=True)
class Attempt:
    """An edit of a pair, which is to be made or is there.

    Attributes:
        pair: with its source pictures; those of a later turn are known when its turn comes.
        of: the pair's position among all pairs of the run.
        number: which of the pair's edits it is, from 0. The first is the one of a run with one
            edit for each pair, with the same seed and place.
    """

    pair: Pair
    of: int
    number: int = 0

    @property
    def name(self) -> str:
        """What logs and records of tasks call it."""
        return f"{self.pair.name} #{self.number + 1}" if self.number else self.pair.name

    def edit_place(self, suffix: str) -> str:
        """Path of the edit, relative to the results' folder."""
        return f"edits{_mark(self.number)}/{self.pair.name}{suffix}"

    def verdict_place(self, judge: str) -> str:
        """Path of a judge's verdict, relative to the results' folder."""
        return verdict_place(self.pair.name, judge, self.number)

    def seed(self, first: int) -> int:
        """The seed of the edit in a run whose base seed is `first`."""
        return seed_of_task(first, self.pair.seed_offset + self.number * SEED_STEP)


def verdict_place(pair: str, judge: str, number: int = 0) -> str:
    """Path of a judge's verdict, relative to the results' folder.

    Args:
        pair: its name.
        number: which of the pair's edits was judged, from 0.
    """
    return f"{SCORES}{_mark(number)}/{judge}/{pair}.json"


def _mark(number: int) -> str:
    return f"-{number + 1}" if number else ""


def attempts_of(pairs: Sequence[Pair], edits_per_pair: int) -> list[Attempt]:
    """The edits of all pairs; one of each pair whose edit the data brings along."""
    return [
        Attempt(pair, position, number)
        for position, pair in enumerate(pairs)
        for number in range(1 if pair.edited_image else edits_per_pair)
    ]
