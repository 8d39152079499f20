"""EditScore's EditReward-Bench (EditScore/EditReward-Bench): edits that exist, compared two by two.

A table with `key` (of the two edits), `task_type`, `dimension` (prompt_following, consistency or
overall), `instruction`, `input_image` and `output_images`. People preferred the first of the two,
as its calculate_statistics.py counts. An edit appears in several rows; it is one pair.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.embedded import Embedded
from apps.edit_benchmark.look import table_columns, table_rows
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.preferences import COMPARISONS, GROUP, compared
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row
from core.errors import InputError
from core.validation import shown

_COLUMNS = {"key", "task_type", "dimension", "instruction", "input_image", "output_images"}


@DATA_SETS.add_one("editscore_bench")
class EditScoreBench:
    """A parquet or arrow table with its columns."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return table_columns(path) >= _COLUMNS

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        return merged(pairs_of(table_rows(path), _pairs))


def _pairs(row: Row, draft: Draft) -> list[Pair]:
    draft.category, draft.language = row.label("task_type"), "en"
    keys = row.values.get("key")
    if not isinstance(keys, list) or len(keys) != 2 or not all(map(str, keys)):
        raise InputError(f"key: expected the keys of two edits (found {shown(keys)}).")
    edits = row.values.get("output_images")
    dimension = row.label("dimension")
    pairs = [
        Pair(
            file_name(str(key)),
            draft.category,
            row.text("instruction"),
            (row.picture("input_image"),),
            language=draft.language,
            edited_image=edits.of(i) if isinstance(edits, Embedded) else _named(row, i),
            metadata=row.others(*_COLUMNS),
        )
        for i, key in enumerate(keys)
    ]
    said = compared(pairs[1].name, 1, dimension)
    first = replace(pairs[0], metadata={**pairs[0].metadata, COMPARISONS: [said]})
    return [first, pairs[1]]


def _named(row: Row, i: int) -> str:
    pictures = row.pictures("output_images")
    if len(pictures) != 2:
        raise InputError(f"output_images: expected two pictures (found {len(pictures)}).")
    return pictures[i]


def merged(pairs: Iterable[Pair]) -> list[Pair]:
    """One pair for each edit, with all that was said of it; what failed stays as it is.

    Edits with the same sources' cell, or that were compared, are of one group.
    """
    found: dict[str, Pair] = {}
    failed: list[Pair] = []
    for pair in pairs:
        if pair.problem is not None:
            failed.append(pair)
        elif pair.name not in found:
            found[pair.name] = pair
        elif said := pair.metadata.get(COMPARISONS):
            known = found[pair.name].metadata
            said = [*known.get(COMPARISONS, []), *said]
            found[pair.name] = replace(found[pair.name], metadata={**known, COMPARISONS: said})
    return [*_grouped(found), *failed]


def _grouped(pairs: dict[str, Pair]) -> list[Pair]:
    """The pairs with a group each that was compared with one another, however indirectly."""
    leader = {name: name for name in pairs}

    def lead(name: str) -> str:
        while leader[name] != name:
            name = leader[name] = leader[leader[name]]
        return name

    for name, pair in pairs.items():
        for said in pair.metadata.get(COMPARISONS, []):
            if said["with"] in pairs:
                leader[lead(said["with"])] = lead(name)
    return [
        replace(pair, metadata={**pair.metadata, GROUP: pairs[lead(name)].pair_id})
        if GROUP not in pair.metadata
        else pair
        for name, pair in pairs.items()
    ]
