"""RISEBench and RISEBench++ (PhoenixZ810/RISEBench): a JSON list beside its folders of pictures.

Rows of `data_total.json`: `index`, `category`, `instruction`, `image`, and what a right result is
as `reference`, `reference_txt` or `reference_img`. Those of RISEBench++ (`overall_data.json`) have
lists of pictures, `subcategory`, `task_type`, `consistency_img` and, in Chinese,
`instruction_chinese`. Edits are called `images/<category>/<index>.png`.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from loguru import logger

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.look import first_row, json_files
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row, rows_of

_COLUMNS = {"index", "category", "instruction", "image"}
_CHINESE = "instruction_chinese"
_READ = (*_COLUMNS, _CHINESE)


@DATA_SETS.add_one("rise")
class Rise:
    """The JSON file, or a folder that holds it, itself or in `data/`."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return bool(_files(path))

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        folders: dict[Path, list[Path]] = defaultdict(list)
        for file in _files(path):
            folders[file.parent].append(file)
        return [pair for files in folders.values() for pair in _of_one(files)]


def _of_one(files: list[Path]) -> list[Pair]:
    """Pairs of the largest file."""
    file = max(files, key=lambda file: file.stat().st_size)
    if len(files) > 1:
        others = ", ".join(each.name for each in files if each != file)
        logger.info(f"{file.name} is read, and not {others}; give --data a file to have another.")
    return pairs_of(rows_of(file), _pairs)


def _files(path: Path) -> list[Path]:
    # Lists alone: a table of lines with such columns is somebody's imagefolder.
    files = [file for file in json_files(path) if file.suffix == ".json"]
    return [file for file in files if first_row(file).keys() >= _COLUMNS]


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.category, draft.language = row.label("category"), "en"
    draft.given_id = row.label("index")
    draft.pair_id = file_name(draft.given_id)
    references = row.pictures("reference_img", ())
    english = Pair(
        draft.pair_id,
        draft.category,
        row.text("instruction"),
        row.pictures("image"),
        language=draft.language,
        target_images=references,
        reference_images=row.pictures("consistency_img", ()),
        given_id=draft.given_id,
        metadata={"reference": _reference(row), **row.others(*_READ, "reference")},
    )
    yield english
    if row.values.get(_CHINESE):
        yield replace(
            english,
            pair_id=f"{draft.pair_id}_cn",
            given_id=f"{draft.given_id}_cn",
            instruction=row.text(_CHINESE),
            language="cn",
            asked_by=("cn",),
        )


def _reference(row: Row) -> str:
    """What a right result is, in words; empty where a picture says it."""
    return row.text("reference", "") or row.text("reference_txt", "")
