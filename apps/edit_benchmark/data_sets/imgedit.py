"""ImgEdit-Bench (PKU-YuanGroup/ImgEdit): its basic, UGE and multi-turn suites.

Each is a JSON object of rows by key. Basic: `id` (the picture's place), `prompt`, `edit_type`. UGE,
the hard suite: `id`, `prompt`. Multi-turn, one file per task: `id`, `turn1`, `turn2` and perhaps
`turn3`, of which each edits what the one before left. As unpacked from Benchmark.tar, the suites
lie in `singleturn/`, `hard/` and `multiturn/` with their pictures; edits are called `<key>.png`.
Where there are several, the first of them is run and the others have to be asked for, because their
scores do not mean the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.look import first_entry, json_files
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row, rows_of
from core.errors import InputError

BASIC, UGE, MULTI_TURN = _ORDER = ("basic", "uge", "multi-turn")
_FOREIGN = ("instruction", "edit", "ori_img", "image", "source")  # keys of others' rows


@DATA_SETS.add_one("imgedit")
class ImgEdit:
    """A suite's JSON file, or a folder with some of them."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return bool(_suites(path))

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        suites = _suites(path)
        usual = next(name for name in _ORDER if name in {suite for _, suite in suites})
        return [
            pair if suite == usual else replace(pair, asked_by=(suite,))
            for file, suite in suites
            for pair in pairs_of(rows_of(file), _Suite(suite, file.stem), subsets=(suite,))
        ]


def _suites(path: Path) -> list[tuple[Path, str]]:
    """Files of suites, and which suite each is."""
    found = [(file, _suite_of(*first_entry(file))) for file in json_files(path)]
    return [(file, suite) for file, suite in found if suite]


def _suite_of(key: str, row: Any) -> str:
    if not key or not isinstance(row, Mapping) or "id" not in row:
        return ""
    if any(name in row for name in _FOREIGN):
        return ""
    if "turn1" in row:
        return MULTI_TURN
    if "prompt" in row:
        return BASIC if "edit_type" in row else UGE
    return ""


class _Suite:
    """How a row of a suite becomes pairs."""

    def __init__(self, suite: str, stem: str) -> None:
        self._suite, self._stem = suite, stem

    def __call__(self, row: Row, draft: Draft) -> Iterator[Pair]:
        draft.language = "en"
        draft.category = UGE if self._suite == UGE else self._stem
        if self._suite == BASIC:
            draft.category = row.label("edit_type")
        draft.pair_id, draft.given_id = file_name(row.key), row.key
        if self._suite == MULTI_TURN:
            return self._turns(row, draft)
        return iter([self._pair(row, draft, row.text("prompt"), (row.picture("id"),))])

    def _turns(self, row: Row, draft: Draft) -> Iterator[Pair]:
        key, before = row.key, ""
        turns = [f"turn{n}" for n in range(1, 10) if row.values.get(f"turn{n}")]
        if not turns:
            raise InputError("turn1: is missing or empty; expected an instruction.")
        source = (row.picture("id"),)
        for turn in turns:
            draft.given_id = f"{key}_{turn}"
            draft.pair_id = file_name(draft.given_id)
            pair = self._pair(row, draft, row.text(turn), () if before else source, before)
            before = pair.name
            yield pair

    def _pair(
        self, row: Row, draft: Draft, instruction: str, sources: tuple[str, ...], follows: str = ""
    ) -> Pair:
        return Pair(
            draft.pair_id,
            draft.category,
            instruction,
            sources,
            language=draft.language,
            follows=follows,
            given_id=draft.given_id,
            metadata=row.others("prompt"),
        )
