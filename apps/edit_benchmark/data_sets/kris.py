"""KRIS-Bench (mercurystraw/Kris_Bench): `<category>/annotation.json` beside its pictures.

A file is an object of rows by key: `ori_img` (one picture, or several), `gt_img` (the right result,
where there is one), `ins_en`, `explain_en` (the knowledge that is asked for). Edits are called
`<category>/<key>.jpg`. Where the sources are frames of a sequence (`<key>-<number>`, 1 to 4), pairs
have `frame`: the place of the one that is to be predicted.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.look import first_row, json_files
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row, rows_of

_FILE = "annotation.json"
_FRAME = re.compile(r"\d+-(\d+)")
_FRAMES = {1, 2, 3, 4}
_SEQUENCE = "temporal_prediction"
_DEPTH = 2  # the repository holds KRIS_Bench, which holds the categories


@DATA_SETS.add_one("kris")
class Kris:
    """The repository, its folder KRIS_Bench, one category's folder, or that one's file."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        files = _files(path)
        return bool(files) and {"ori_img", "ins_en"} <= first_row(files[0]).keys()

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        return [pair for file in _files(path) for pair in pairs_of(rows_of(file), _pairs)]


def _files(path: Path) -> list[Path]:
    return [file for file in json_files(path, _DEPTH) if file.name == _FILE]


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.category, draft.language = row.folder.name, "en"
    draft.pair_id, draft.given_id = file_name(row.key) if row.key else draft.pair_id, row.key
    yield Pair(
        draft.pair_id,
        draft.category,
        row.text("ins_en"),
        row.pictures("ori_img"),
        language=draft.language,
        target_images=row.pictures("gt_img", ()),
        given_id=draft.given_id or None,
        # An empty explanation is kept: the question that names it asks without.
        metadata={"explain_en": "", **row.others("ori_img", "gt_img", "ins_en"), **_place(row)},
    )


def _place(row: Row) -> dict[str, int]:
    """Where the predicted frame stands among the others, by the numbers of those that are given."""
    names = row.values.get("ori_img")
    if row.folder.name != _SEQUENCE or not isinstance(names, list):
        return {}
    numbers = [int(found[1]) for name in names if (found := _FRAME.search(str(name)))]
    if not numbers or len(numbers) < len(names):
        return {}
    missing = _FRAMES - {*numbers}
    predicted = missing.pop() if len(missing) == 1 else max(numbers) + 1
    return {"frame": 1 + sum(number < predicted for number in numbers)}
