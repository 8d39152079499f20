"""What became of one pair of a benchmark."""

from dataclasses import dataclass

from apps.edit_benchmark.pair import Pair
from core.tasks import Result


@dataclass(frozen=True)
class PairResult:
    """A pair, its edit, and its score if there was an edit."""

    pair: Pair
    edit: Result
    score: Result | None = None
