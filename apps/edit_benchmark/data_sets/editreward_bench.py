"""EditReward-Bench (TIGER-Lab/EditReward-Bench): groups of two to four edits that exist, ranked.

A table for each of `2pair`, `3pair` and `4pair`. A row compares two edits: `id`, `instruction`,
`source_image`, `candidate_1`, `candidate_2`, `ranking` (such as `A>B`, or `A=B=Good`), and
`comparison_type` (`AvsC`: which two of the group's edits these are). Rows of a group share the part
of their ids before the first `_`, as its own evaluation groups them. An edit is one pair.
"""

import re
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.data_sets.editscore_bench import merged
from apps.edit_benchmark.look import arrow_files, split_of, table_columns
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.preferences import COMPARISONS, GROUP, compared
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row, rows_of
from core.errors import InputError
from core.validation import shown

_COLUMNS = {"instruction", "source_image", "candidate_1", "candidate_2", "ranking"}
_READ = (*_COLUMNS, "id", "comparison_type", "dataset", *(f"{n}_{i}" for n in ("model", "score")
         for i in (1, 2)))  # fmt: skip
_TWO = re.compile(r"^\s*([A-D])\s*vs\s*([A-D])\s*$")
_RANKING = re.compile(r"^\s*([A-D])\s*([<>=])\s*([A-D])\s*(?:=\s*\w+)?\s*$")


@DATA_SETS.add_one("editreward_bench")
class EditRewardBench:
    """A parquet or arrow table with its columns, or a folder with some."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return table_columns(path) >= _COLUMNS

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        return merged(
            pair
            for file in arrow_files(path)
            for pair in pairs_of(rows_of(file), _Rows(file, path))
        )


class _Rows:
    """How rows of one file become pairs."""

    def __init__(self, file: Path, path: Path) -> None:
        self._part = next(iter(split_of(file, path)), "")

    def __call__(self, row: Row, draft: Draft) -> list[Pair]:
        part = row.label("dataset", self._part)
        draft.category, draft.language = part or "pairs", "en"
        draft.subsets = (part,) if part else ()
        given = row.label("id")
        group = given.partition("_")[0] if "_" in given else given[:10]
        first, second = _letters(row)
        pairs = [
            Pair(
                file_name(f"{group}_{letter}"),
                draft.category,
                row.text("instruction"),
                (row.picture("source_image"),),
                language=draft.language,
                edited_image=row.picture(f"candidate_{i}"),
                subsets=draft.subsets,
                metadata={**row.others(*_READ), **_own(row, i), GROUP: group},
            )
            for i, letter in ((1, first), (2, second))
        ]
        said = compared(pairs[1].name, _preferred(row, first, second), part=part)
        pairs[0].metadata[COMPARISONS] = [said]
        return pairs


def _own(row: Row, i: int) -> dict[str, str]:
    """What the row says of one of its edits: who made it, and its score."""
    own = {name: row.label(f"{name}_{i}", "") for name in ("model", "score")}
    return {name: value for name, value in own.items() if value}


def _letters(row: Row) -> tuple[str, str]:
    said = row.text("comparison_type", "AvsB")
    two = _TWO.match(said)
    if two is None or two[1] == two[2]:
        raise InputError(f"comparison_type: expected two edits as AvsB (found {shown(said)}).")
    return two[1], two[2]


def _preferred(row: Row, first: str, second: str) -> int:
    """1 for the first edit, -1 for the second, 0 for a tie."""
    said = row.text("ranking")
    ranking = _RANKING.match(said)
    if ranking is None or {ranking[1], ranking[3]} != {first, second}:
        raise InputError(
            f"ranking: expected {first}>{second}, {second}>{first} or {first}={second} "
            f"(found {shown(said)})."
        )
    sign = {">": 1, "<": -1, "=": 0}[ranking[2]]
    return sign if ranking[1] == first else -sign
