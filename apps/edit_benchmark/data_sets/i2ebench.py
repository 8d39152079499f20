"""I2EBench (cocoshe/I2EBench): `EditData/<task>/<task>.json` beside `input/`, `mask/` and `gt/`.

A file is an object of rows by key: `image`, `ori_exp` (the original instruction), `div_exp` (a
diverse wording of it), `type`, and with most tasks `Evaluation` and `Answer`, a question about the
edit with its right answer. Tasks of low level have the right result in `gt/`, RegionAccuracy a
`mask`, and StyleAlteration the name of the `style`, which metrics know as `output_caption`. The
diverse wordings have to be asked for. Those rows that have a question are a part by themselves.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.look import first_row, json_files
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name, inside
from apps.edit_benchmark.table_rows import Row, rows_of
from core.judges.metrics import AFTER

ORIGINAL, DIVERSE = "original", "diverse"
QUESTIONS = "questions"
ASKED, RIGHT = "Evaluation", "Answer"
_COLUMNS = {"image", "ori_exp"}
_DEPTH = 2  # the repository holds EditData, which holds the tasks


@DATA_SETS.add_one("i2ebench")
class I2EBench:
    """The repository, its folder EditData, one task's folder, or that one's file."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return any(first_row(file).keys() >= _COLUMNS for file in _files(path))

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        return [
            pair
            for file in _files(path)
            if first_row(file).keys() >= _COLUMNS
            for pair in pairs_of(rows_of(file), _pairs)
        ]


def _files(path: Path) -> list[Path]:
    """Each task's own file: others beside it are repetitions of its runs."""
    return [file for file in json_files(path, _DEPTH) if file.stem == file.parent.name]


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.category, draft.language = row.folder.name, "en"
    name = row.text("image")
    draft.given_id = row.key or Path(name).stem
    draft.pair_id = file_name(draft.given_id)
    source = inside(row.folder / "input", name, "image")
    right = row.folder / "gt" / source.name
    mask = row.text("mask", "")
    asked = (QUESTIONS,) if _is_text(row, ASKED) and _is_text(row, RIGHT) else ()
    more = row.others("ori_exp", "div_exp", "mask")
    if _is_text(row, "style"):
        more[AFTER] = row.values["style"]
    original = Pair(
        draft.pair_id,
        draft.category,
        row.text("ori_exp"),
        (str(source),),
        language=draft.language,
        target_images=(str(right),) if right.is_file() else (),
        mask=str(inside(row.folder / "mask", mask, "mask")) if mask else "",
        given_id=draft.given_id,
        subsets=(ORIGINAL, *asked),
        metadata=more,
    )
    yield original
    diverse = row.values.get("div_exp")
    if isinstance(diverse, str) and diverse:
        yield replace(
            original,
            pair_id=f"{draft.pair_id}_div",
            given_id=f"{draft.given_id}_div",
            instruction=diverse,
            subsets=(DIVERSE, *asked),
            asked_by=DIVERSE,
        )


def _is_text(row: Row, name: str) -> bool:
    value = row.values.get(name)
    return isinstance(value, str) and bool(value.strip())
