"""AnyEdit and its test split AnyBench (DCDmllm/AnyEdit): JSON beside its pictures, or a table.

A row has `edit` (`edit_instruction` in the table), `edit_type`, `image_file`, `edited_file` (the
right result), `visual_input` (a further picture, or None), and captions as `input` and `output`,
which metrics know as `input_caption` and `output_caption`. As the test split is unpacked, each type
has a folder with its own `edit_result.json`, and the names of pictures begin two folders above it.
There the folder says the type, by which the split's own script goes.
"""

from collections.abc import Iterator
from pathlib import Path

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.embedded import Embedded
from apps.edit_benchmark.encoded_pictures import DATA_URL
from apps.edit_benchmark.look import arrow_files, first_row, json_files, table_columns
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, Parts
from apps.edit_benchmark.rows import file_name
from apps.edit_benchmark.table_rows import Row
from core.judges.metrics import AFTER, BEFORE

_COLUMNS = {"edit_type", "image_file", "edited_file"}
_INSTRUCTIONS = {"edit", "edit_instruction"}
IMAGE = "image_file"  # the field with the source's name, which edits are called by
_READ = ("edit", "edit_instruction", "edit_type", "image_file", "edited_file", "visual_input")
_DEPTH = 2  # the split holds its types
_OF_TYPE = "edit_result.json"


@DATA_SETS.add_one("anyedit")
class AnyEdit:
    """A JSON file, a table, or a folder with either."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return _has_columns(table_columns(path)) or bool(_files(path))

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        files = arrow_files(path) or _files(path)
        parts = Parts(path)
        return [pair for file in files for pair in parts.pairs_of(file, _pairs)]


def _has_columns(names: frozenset[str]) -> bool:
    return names >= _COLUMNS and bool(_INSTRUCTIONS & names)


def _files(path: Path) -> list[Path]:
    """Files whose first row has the columns, and of the test split all, if one is."""
    files = json_files(path, _DEPTH)
    found = {file for file in files if _has_columns(frozenset(first_row(file)))}
    if any(file.name == _OF_TYPE for file in found):
        found |= {file for file in files if file.name == _OF_TYPE}
    return [file for file in files if file in found]


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.language = "en"
    draft.category = row.folder.name if row.file.name == _OF_TYPE else row.label("edit_type")
    instruction = next((n for n in ("edit_instruction", "edit") if row.values.get(n)), "edit")
    draft.given_id = row.label("image_id", "") or row.key or None
    source = row.picture(IMAGE)
    # The picture of one row may be another's, with another edit.
    named = "" if isinstance(source, Embedded) else f"{Path(source).stem}_{draft.index:04d}"
    draft.pair_id = file_name(draft.given_id or named or f"row_{draft.index:06d}")
    visual = row.pictures("visual_input", ())
    yield Pair(
        draft.pair_id,
        draft.category,
        row.text(instruction),
        # [v*] in an instruction stands for the further picture, so the editor sees it, too.
        (source, *visual),
        language=draft.language,
        target_images=row.pictures("edited_file", ()),
        reference_images=visual,
        metadata={**row.others(*_READ), **_captions(row), **_name_of_source(row)},
    )


def _name_of_source(row: Row) -> dict[str, str]:
    """The name of the source's file; nothing where the picture itself stands in the row."""
    name = row.values.get(IMAGE)
    if not isinstance(name, str) or name.startswith(DATA_URL):
        return {}
    return {IMAGE: name}


def _captions(row: Row) -> dict[str, str]:
    texts = {BEFORE: row.values.get("input"), AFTER: row.values.get("output")}
    return {
        name: text
        for name, text in texts.items()
        if isinstance(text, str) and text.strip().casefold() not in ("", "none")
    }
