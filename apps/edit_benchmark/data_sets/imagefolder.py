"""Pairs in a Hugging Face imagefolder: `metadata.jsonl` beside the pictures."""

from pathlib import Path
from typing import Any

from apps.edit_benchmark.categories import UNSORTED, category_of
from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.rows import (
    INSTRUCTION_HINTS,
    PICTURE_HINTS,
    file_name,
    inside,
    json_lines,
    kept,
    label_of,
    text_of,
)
from core.errors import InputError

_OURS = ("input_file_name", "input_file_names", "instruction", "category", "pair_id", "language")


@DATA_SETS.add_one("imagefolder")
class ImageFolder:
    """Any folder that is of no other form."""

    takes_any = True

    def fits(self, path: Path) -> bool:
        return path.is_dir()

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        return _read(path)


def _read(folder: Path) -> list[Pair]:
    """One pair per row of `metadata.jsonl`.

    Columns: `input_file_name` (or a list, `input_file_names`), `instruction`, and optionally
    `category`, `pair_id` (else the picture's name), `language`; others are kept as metadata, as
    far as they are small.

    Raises:
        InputError: no such file.
    """
    table = folder / "metadata.jsonl"
    if not table.is_file():
        raise InputError(
            f"data: {folder} has no metadata.jsonl and no fullset folder; see "
            "config/edit_benchmark.yaml for what is read."
        )
    return [_pair(row, folder, i) for i, row in enumerate(json_lines(table))]


def _pair(row: dict[str, Any] | InputError, folder: Path, position: int) -> Pair:
    name = f"pair_{position:04d}"
    if isinstance(row, InputError):
        return Pair(name, UNSORTED, problem=row, language="")
    category, language = UNSORTED, ""
    given_id: str | None = None
    try:
        category = category_of(row, "category")
        language = text_of(row, "language", "en")
        files = row.get("input_file_names") or [
            text_of(row, "input_file_name", hints=PICTURE_HINTS)
        ]
        if not isinstance(files, list) or not all(isinstance(f, str) and f for f in files):
            raise InputError("input_file_names: expected a list of file names.")
        given_id = label_of(row, "pair_id", "").strip() or None
        name = file_name(given_id or Path(files[0]).stem)
        sources = tuple(str(inside(folder, f, "input_file_name")) for f in files)
        return Pair(
            name,
            category,
            text_of(row, "instruction", hints=INSTRUCTION_HINTS),
            sources,
            language=language,
            given_id=given_id,
            metadata=kept({k: v for k, v in row.items() if k not in _OURS}),
        )
    except InputError as problem:
        return Pair(name, category, problem=problem, language=language, given_id=given_id)
