"""The benchmark's input: pictures with instructions, in any form that `data_sets` has a file for.

An input that cannot be read at all raises; a pair that cannot be used keeps its place as an
`InputError`, so that it ends as a failed record and not as a missing one.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.pair import Pair
from core.errors import InputError
from core.names import MAX_BYTES, cut
from core.paths import as_text, readings
from core.settings import PROJECT_DIR
from core.store.outputs import output_key
from core.validation import shown


@dataclass(frozen=True)
class PairSet:
    """All pairs of one input, in its order."""

    name: str
    pairs: list[Pair]

    @property
    def categories(self) -> list[str]:
        """Categories of the pairs, in the order in which they first appear."""
        return list(dict.fromkeys(pair.category for pair in self.pairs))

    def selected(self, categories: Sequence[str] | None, limit: int | None) -> "PairSet":
        """Choose pairs of some categories, and the first `limit` of what is left.

        Raises:
            InputError: a category that no pair has.
        """
        pairs = self.pairs
        if categories is not None:
            unknown = [c for c in categories if c not in self.categories]
            if unknown:
                raise InputError(
                    f"categories: {unknown[0]!r} is not in {self.name}; there are "
                    f"{', '.join(self.categories)}."
                )
            pairs = [pair for pair in pairs if pair.category in categories]
        return PairSet(self.name, pairs[:limit])


def read_pairs(data: str | Path, work_folder: Path) -> PairSet:
    """Read an input in whichever form it has.

    Args:
        work_folder: where pictures that come inside a JSON file are written.

    Raises:
        InputError: nothing there, or nothing that is read here.
        StorageError: `work_folder` cannot be written.
    """
    path = find_data(data)
    name = path.stem if path.is_file() else path.name
    # What takes any file or folder is asked after those that know theirs by a mark.
    known = sorted(DATA_SETS.values(), key=lambda data_set: data_set.takes_any)
    pairs = next(one for one in known if one.fits(path)).read(path, work_folder)
    if not pairs:
        raise InputError(f"data: {path} holds no pairs.")
    return PairSet(name, _with_unique_ids(pairs))


def find_data(data: str | Path) -> Path:
    """Find data from the current folder, then from this project's."""
    given = readings(data, "data")
    for path in (*given, *(PROJECT_DIR / path for path in given)):
        if os.path.exists(path):
            return Path(os.path.abspath(path))  # without "..": what lies below is compared by text
    raise InputError(f"data: {shown(str(data))} is neither a file nor a folder.")


def _with_unique_ids(pairs: Sequence[Pair]) -> list[Pair]:
    """Fail pairs whose id the data gives twice: which pair is meant is unknown.

    Others that clash get their position appended. The first keeps its own, so that ids and
    results stay as they are when the data grows.
    """
    given: set[tuple[str, str]] = set()
    taken: set[str] = set()
    unique = []
    for position, pair in enumerate(pairs):
        if pair.given_id is not None:
            key = (pair.category, pair.given_id)
            if key in given:
                pair = _given_twice(pair)
            given.add(key)
        own, numbers = pair.pair_id, ""
        while output_key(pair.name) in taken:
            numbers += f"_{position:04d}"
            shortened = cut(own, len(own), MAX_BYTES - len(numbers))
            pair = replace(pair, pair_id=f"{shortened}{numbers}")
        taken.add(output_key(pair.name))
        sources = tuple(map(as_text, pair.source_images))
        unique.append(replace(pair, index=position, source_images=sources))
    return unique


def _given_twice(pair: Pair) -> Pair:
    problem = InputError(f"Pair {pair.given_id!r} of {pair.category!r} is given twice.")
    return replace(pair, problem=problem, given_id=None)
