"""The benchmark's input: pictures with instructions, in any form that `data_sets` has a file for.

An input that cannot be read at all raises; a pair that cannot be used keeps its place as an
`InputError`, so that it ends as a failed record and not as a missing one.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from loguru import logger

from apps.edit_benchmark.completeness import check_complete, check_pictures
from apps.edit_benchmark.data_set import DATA_SETS, MAPPED, DataSet, form_of
from apps.edit_benchmark.embedded import Embedded, unpacked
from apps.edit_benchmark.mapped import Fields, Mapped
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.preferences import with_names
from apps.edit_benchmark.selection import Choice
from core.errors import InputError
from core.names import MAX_BYTES, counted, cut
from core.paths import as_text, readings
from core.settings import PROJECT_DIR
from core.store.outputs import output_key
from core.validation import shown_path

SeedBy = Literal["auto", "position", "id"]
"""What the seeds of pairs follow: their places in the input, their ids, or what their form does."""


@dataclass(frozen=True)
class PairSet:
    """Pairs of one input, in its order."""

    name: str
    pairs: list[Pair]

    @property
    def categories(self) -> list[str]:
        """Categories of the pairs, in the order in which they first appear."""
        return list(dict.fromkeys(pair.category for pair in self.pairs))

    def selected(self, choice: Choice) -> "PairSet":
        """The pairs of a choice.

        Raises:
            InputError: a language, a subset or a category that no pair has.
        """
        return PairSet(self.name, choice.of(self.pairs, self.name))

    def unpacked(self, work_folder: Path) -> "PairSet":
        """The same pairs, with pictures inside of tables as files of the work folder.

        Raises:
            InputError: a table cannot be read.
            StorageError: `work_folder` cannot be written.
        """
        return PairSet(self.name, unpacked(self.pairs, work_folder))


def read_pairs(
    data: str | Path,
    work_folder: Path,
    choice: Choice | None = None,
    fields: Fields | None = None,
    seed_by: SeedBy = "auto",
    with_pictures: bool = True,
) -> PairSet:
    """Read an input in whichever form it has.

    Args:
        work_folder: where pictures that come inside of a file are written.
        choice: which pairs; by default all that are not left out unless they are asked for.
        fields: how the columns of a table of no known form are called.
        seed_by: whether seeds follow places in the input or names.
        with_pictures: those inside of tables are written to `work_folder`; else they stay there.

    Raises:
        InputError: nothing there, nothing that is read here, not all of it there, or a choice of
            what is not there.
        StorageError: `work_folder` cannot be written.
    """
    path = find_data(data)
    check_complete(path)
    name = path.stem if path.is_file() else path.name
    form = MAPPED if fields else form_of(path)
    data_set: DataSet = Mapped(fields) if fields else DATA_SETS[form]
    pairs = data_set.read(path, work_folder)
    if not pairs:
        raise InputError(f"data: {path} holds no pairs.")
    known = [_known(pair, form, seed_by) for pair in _with_unique_ids(pairs)]
    usual = PairSet(name, known).selected(Choice())
    chosen = PairSet(name, known).selected(choice) if choice else usual
    if chosen.pairs != usual.pairs:
        number = len(chosen.pairs)
        are = f"{counted(number, 'pair')} of {name} {'is' if number == 1 else 'are'} chosen"
        logger.info(f"{are}; {_how_many(known, usual.pairs)}.")
    check_pictures(chosen.pairs)
    return chosen.unpacked(work_folder) if with_pictures else chosen


def _how_many(every: Sequence[Pair], usual: Sequence[Pair]) -> str:
    """How many pairs the data has, and how many of them are run where nothing is chosen."""
    if len(every) == len(usual):
        return f"it has {len(every)}"
    subsets = ", ".join(dict.fromkeys(name for pair in every for name in pair.asked_by))
    return f"it has {len(every)}, of which {len(usual)} are run unless {subsets} is asked for"


def _known(pair: Pair, form: str, seed_by: SeedBy) -> Pair:
    by_id = pair.seed_by_id if seed_by == "auto" else seed_by == "id"
    return replace(pair, data_set=form, seed_by_id=by_id)


def find_data(data: str | Path) -> Path:
    """Find data from the current folder, then from this project's."""
    given = readings(data, "data")
    for path in (*given, *(PROJECT_DIR / path for path in given)):
        if os.path.exists(path):
            return Path(os.path.abspath(path))  # without "..": what lies below is compared by text
    raise InputError(f"data: {shown_path(str(data))} is neither a file nor a folder.")


def _with_unique_ids(pairs: Sequence[Pair]) -> list[Pair]:
    """Fail pairs whose id the data gives twice: which pair is meant is unknown.

    Others that clash get their position appended. The first keeps its own, so that ids and
    results stay as they are when the data grows.
    """
    given: set[tuple[str, str]] = set()
    taken: set[str] = set()
    renamed: dict[str, str] = {}
    unique: list[Pair] = []
    for position, pair in enumerate(pairs):
        if pair.given_id is not None:
            key = (pair.category, pair.given_id)
            if key in given:
                pair = _given_twice(pair)
            given.add(key)
        own, numbers, name = pair.pair_id, "", pair.name
        while output_key(pair.name) in taken:
            numbers += f"_{position:04d}"
            shortened = cut(own, len(own), MAX_BYTES - len(numbers))
            pair = replace(pair, pair_id=f"{shortened}{numbers}")
        taken.add(output_key(pair.name))
        sources = tuple(map(_as_text, pair.source_images))
        follows = renamed.get(pair.follows, pair.follows)
        renamed[name] = pair.name
        unique.append(replace(pair, index=position, source_images=sources, follows=follows))
    problems = {pair.name: pair.problem for pair in unique}
    return [_after_usable(with_names(pair, renamed), problems) for pair in unique]


def _after_usable(pair: Pair, problems: dict[str, InputError | None]) -> Pair:
    """Fail a turn whose turn before is not there, or cannot be used.

    Args:
        problems: of all pairs by name; those of later turns are added.
    """
    before = pair.follows
    if not before or pair.problem or (before in problems and problems[before] is None):
        return pair
    problem = problems[pair.name] = InputError(f"The turn before, {before}, cannot be used.")
    return replace(pair, problem=problem)


def _as_text(path: str) -> str:
    return path if isinstance(path, Embedded) else as_text(path)


def _given_twice(pair: Pair) -> Pair:
    problem = InputError(f"Pair {pair.given_id!r} of {pair.category!r} is given twice.")
    return replace(pair, problem=problem, given_id=None)
