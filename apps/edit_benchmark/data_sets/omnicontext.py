"""OmniContext (VectorSpaceLab/OmniGen2): pictures of several subjects to be brought together.

A table with `key`, `task_type` (`single_`, `multi_` or `scene_` and what they bring along),
`instruction`, `instruction_language` and `input_images`, a list of pictures.
"""

from collections.abc import Iterator
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.look import table_columns, table_rows
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row

_COLUMNS = {"key", "task_type", "instruction", "input_images"}


@DATA_SETS.add_one("omnicontext")
class OmniContext:
    """A parquet or arrow table with OmniContext's columns."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return table_columns(path) >= _COLUMNS

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        return pairs_of(table_rows(path), _pairs)


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.category, draft.given_id = row.label("task_type"), row.label("key")
    draft.language = row.label("instruction_language", "en")
    draft.pair_id = file_name(draft.given_id)
    yield Pair(
        draft.pair_id,
        draft.category,
        row.text("instruction"),
        row.pictures("input_images"),
        language=draft.language,
        given_id=draft.given_id,
        metadata=row.others("task_type", "instruction", "instruction_language"),
    )
