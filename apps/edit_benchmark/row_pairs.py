"""From the rows of a table to pairs: a row that cannot be used fails alone and says where it is."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from apps.edit_benchmark.categories import UNSORTED
from apps.edit_benchmark.look import split_of
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.table_rows import Row, rows_of
from core.errors import InputError


@dataclass
class Draft:
    """What is known of a pair while its row is read, and kept of one that fails.

    Attributes:
        index: the row's place in its table, from 0; a table may have several parts.
    """

    pair_id: str
    index: int = 0
    category: str = UNSORTED
    language: str = ""
    given_id: str | None = None
    subsets: tuple[str, ...] = ()
    seed_by_id: bool = True

    def pair(self, problem: InputError) -> Pair:
        """The failed pair."""
        return Pair(
            self.pair_id,
            self.category,
            problem=problem,
            is_sketch=True,
            language=self.language,
            given_id=self.given_id,
            subsets=self.subsets,
        )


Build = Callable[[Row, Draft], Iterable[Pair]]
"""Makes the pairs of a row and notes in the draft what it knows; raises InputError."""


def pairs_of(
    rows: Iterable[Row],
    build: Build,
    prefix: str = "row",
    subsets: tuple[str, ...] = (),
    places: Iterable[int] | None = None,
) -> list[Pair]:
    """The pairs of all rows.

    Args:
        prefix: of the ids of pairs about which nothing is known but their place.
        subsets: of all of them, before those that `build` finds.
        places: of the rows in their table; by default from 0.
    """
    pairs: list[Pair] = []
    for row, index in zip(rows, count() if places is None else places, strict=False):
        draft = Draft(f"{prefix}_{index:04d}", index)
        try:
            if row.problem is not None:
                raise row.problem
            found = list(build(row, draft))
        except InputError as problem:
            found = [draft.pair(InputError(f"{row.place}: {problem}"))]
        pairs += [
            replace(each, subsets=(*subsets, *each.subsets), seed_by_id=draft.seed_by_id)
            for each in found
        ]
    return pairs


class Parts:
    """The files of a data set, of which several may be parts of one split: its rows count through.

    Args:
        path: of the data set.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[tuple[str, ...], Iterator[int]] = defaultdict(count)

    def pairs_of(self, file: Path, build: Build, prefix: str = "row") -> list[Pair]:
        """The pairs of the next file; they have its split as their subset."""
        split = split_of(file, self._path)
        return pairs_of(rows_of(file), build, prefix, split, self._places[split])
