"""The size in which edits are judged: as the model drew them, or as large as their sources."""

from collections.abc import Iterable
from typing import Literal

from apps.edit_benchmark.pair import Pair

OutputSize = Literal["auto", "model", "source"]
"""The setting; auto is as the scripts of the pair's benchmark do."""
JudgedSize = Literal["model", "source"]

# GEdit-Bench's test_gedit_score.py resizes every edit to its source, and so does EditScore, whose
# benchmark has edits that were. The scripts of other benchmarks show judges the files as they are.
AT_SOURCE_SIZE = ("gedit", "editscore_bench")


def size_judged(pair: Pair, asked: OutputSize) -> JudgedSize:
    """The size in which the edit of a pair is judged."""
    if asked != "auto":
        return asked
    return "source" if pair.data_set in AT_SOURCE_SIZE else "model"


def sizes_judged(pairs: Iterable[Pair], asked: OutputSize) -> str:
    """The size of all pairs in a word; both where they differ."""
    return " and ".join(sorted({size_judged(pair, asked) for pair in pairs})) or "model"
