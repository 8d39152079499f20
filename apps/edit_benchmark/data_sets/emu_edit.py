"""Emu Edit's test set (facebook/emu_edit_test_set): a table with the pictures inside.

Columns: `instruction`, `image`, `task`, `split`, `idx`, `hash`, `input_caption`, `output_caption`.
The published generations (facebook/emu_edit_test_set_generations) have `edited_image` and `model`
as well: edits that exist.
"""

from collections.abc import Iterator
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.look import arrow_files, table_columns
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, Parts
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row

_COLUMNS = {"instruction", "image", "task", "input_caption", "output_caption"}


@DATA_SETS.add_one("emu_edit")
class EmuEdit:
    """A parquet or arrow table with Emu Edit's columns."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return table_columns(path) >= _COLUMNS

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        parts = Parts(path)
        return [pair for file in arrow_files(path) for pair in parts.pairs_of(file, _pairs)]


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.category, draft.language = row.label("task"), "en"
    split = row.label("split", "")
    # The splits count from 0 each.
    number = row.label("idx", "") or row.label("hash", "")
    draft.given_id = "_".join(filter(None, (split, number))) or None
    draft.pair_id = file_name(draft.given_id or draft.pair_id)
    yield Pair(
        draft.pair_id,
        draft.category,
        row.text("instruction"),
        (row.picture("image"),),
        language=draft.language,
        edited_image=row.picture("edited_image", ""),
        given_id=draft.given_id,
        metadata=row.others("instruction", "task"),
    )
