"""What became of one pair of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.edit_benchmark.pair import Pair
from core.tasks import Result


@dataclass(frozen=True)
class AttemptResult:
    """One edit of a pair, and its score if there was an edit.

    Attributes:
        number: which of the pair's edits it is, from 0.
    """

    number: int
    edit: Result
    score: Result | None = None


@dataclass(frozen=True)
class PairResult:
    """A pair, its edit, and its score if there was an edit.

    Attributes:
        pair: with the source pictures that were edited.
        attempts: where the pair has several edits: all of them, in their order. `edit` and `score`
            are those of the one that was chosen.
    """

    pair: Pair
    edit: Result
    score: Result | None = None
    attempts: Sequence[AttemptResult] = ()

    @property
    def chosen(self) -> int:
        """Which of several edits counts."""
        return next((a.number for a in self.attempts if a.edit is self.edit), 0)
