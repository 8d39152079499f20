"""From the rows of a table to pairs: a row that cannot be used fails alone and says where it is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from apps.edit_benchmark.categories import UNSORTED
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.table_rows import Row
from core.errors import InputError


@dataclass
class Draft:
    """What is known of a pair while its row is read, and kept of one that fails."""

    pair_id: str
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
    rows: Iterable[Row], build: Build, prefix: str = "row", subsets: tuple[str, ...] = ()
) -> list[Pair]:
    """The pairs of all rows.

    Args:
        prefix: of the ids of pairs about which nothing is known but their place.
        subsets: of all of them, before those that `build` finds.
    """
    pairs: list[Pair] = []
    for position, row in enumerate(rows):
        draft = Draft(f"{prefix}_{position:04d}")
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
