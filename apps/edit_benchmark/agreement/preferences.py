"""What people preferred, read from pairs in the form that `apps.edit_benchmark.pair` describes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from apps.edit_benchmark.pair import Pair
from core.errors import InputError
from core.validation import shown

OVERALL = "overall"


@dataclass(frozen=True)
class Preference:
    """Two candidates, and the one that people preferred.

    Attributes:
        task: the pairs' category.
        group: of candidates of one source and instruction.
        dimension: by what they were compared, such as overall or prompt_following.
        better, other: names of the pairs; for a tie in any order.
    """

    task: str
    group: str
    dimension: str
    better: str
    other: str
    tie: bool = False


def preferences_of(pairs: Sequence[Pair]) -> list[Preference]:
    """All comparisons that the data tells of whose candidates are among `pairs`.

    Raises:
        InputError: names the pair, the field and what would be right.
    """
    names = {pair.name for pair in pairs}
    ranked: dict[str, list[tuple[float, Pair]]] = {}
    found: list[Preference] = []
    for pair in pairs:
        group = pair.metadata.get("group")
        if group is None:
            continue
        if not isinstance(group, str):
            raise _wrong(pair, "group", group, "text")
        rank = pair.metadata.get("rank")
        if rank is not None:
            if isinstance(rank, bool) or not isinstance(rank, int | float):
                raise _wrong(pair, "rank", rank, "a number, 1 for the best")
            ranked.setdefault(group, []).append((float(rank), pair))
        found += (p for p in _compared(pair, group) if p.other in names)
    for group, candidates in ranked.items():
        found += _by_rank(group, candidates)
    return found


def _by_rank(group: str, candidates: Sequence[tuple[float, Pair]]) -> Iterator[Preference]:
    for (rank_a, a), (rank_b, b) in combinations(candidates, 2):
        better, other = (a, b) if rank_a <= rank_b else (b, a)
        yield Preference(a.category, group, OVERALL, better.name, other.name, rank_a == rank_b)


def _compared(pair: Pair, group: str) -> Iterator[Preference]:
    entries = pair.metadata.get("preferred", [])
    if not isinstance(entries, list | tuple):
        raise _wrong(pair, "preferred", entries, 'a list of {"over": NAME}')
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("over"), str):
            raise _wrong(pair, "preferred", entry, '{"over": NAME, "dimension": "overall"}')
        dimension, tie = entry.get("dimension", OVERALL), entry.get("tie", False)
        if not isinstance(dimension, str) or not isinstance(tie, bool):
            raise _wrong(pair, "preferred", entry, "`dimension` text and `tie` true or false")
        yield Preference(pair.category, group, dimension, pair.name, entry["over"], tie)


def _wrong(pair: Pair, field: str, value: Any, right: str) -> InputError:
    return InputError(f"pair {pair.name}: {field}: {shown(value)}: expected {right}.")
