"""Pairs in a Hugging Face imagefolder, in every form in which `datasets` writes and reads one.

Pictures with a `metadata.jsonl`, `metadata.csv` or `metadata.parquet`, beside them or in folders of
splits (`train/`), which names them by `file_name`; parquet shards with the pictures inside; arrow
files as `save_to_disk` leaves them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from apps.edit_benchmark.arrow_tables import SUFFIXES as ARROW
from apps.edit_benchmark.categories import category_of
from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.embedded import Embedded
from apps.edit_benchmark.look import arrow_files, tables_named
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, Parts
from apps.edit_benchmark.rows import INSTRUCTION_HINTS, PICTURE_HINTS, file_name, hint, text_of
from apps.edit_benchmark.table_rows import SEPARATED, Row
from core.errors import InputError
from core.validation import shown

_TABLE = "metadata"
_NAMES = tuple(f"{_TABLE}{suffix}" for suffix in (".jsonl", *SEPARATED, *ARROW))
# Columns of the source, the most definite first; those of pictures inside of a table are below.
_OWN = ("input_file_names", "input_file_name")
_FILES = (*_OWN, "file_names", "file_name")
_PICTURES = ("input_images", "input_image", "source_image", "source_img", "image", "img")
_TARGETS = ("target_file_name", "target_image", "target_img")
_MASKS = ("mask_file_name", "mask_image", "mask_img", "mask")
_OURS = (*_FILES, *_PICTURES, *_TARGETS, *_MASKS, "instruction", "category", "pair_id", "language")


@DATA_SETS.add_one("imagefolder")
class ImageFolder:
    """Any folder, and any table with pictures, that is of no other form."""

    takes_any = True

    def fits(self, path: Path) -> bool:
        return path.is_dir() or path.suffix.lower() in (*ARROW, *SEPARATED)

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        """One pair per row.

        Columns: `input_file_name` or `file_name` (or a list, `input_file_names`), or a picture
        inside of the table; `instruction`; optionally `category`, `pair_id` (else the picture's
        name), `language`, `target_image`, `mask`. Others are kept as metadata, as far as they are
        small.

        Raises:
            InputError: no table, or one that cannot be read.
        """
        files = _tables(path)
        if not files:
            raise InputError(
                f"data: {path} has no metadata.jsonl (.csv, .parquet), no parquet or arrow files, "
                "and no form that is known; see config/edit_benchmark.yaml for what is read."
            )
        parts = Parts(path)
        return [
            pair
            for file in files
            for pair in parts.pairs_of(
                file, _OwnForm() if file == path / _NAMES[0] else _pairs, "pair"
            )
        ]


def _tables(path: Path) -> Sequence[Path]:
    if path.is_file():
        return [path]
    return tables_named(path, _NAMES) or arrow_files(path)


class _OwnForm:
    """Rows of a metadata.jsonl that is not in a split's folder.

    Where pictures are called `input_file_name`, it is this project's own form, and rows have the
    seeds of their places in it, as ever; rows that cannot be read do as those before them.
    """

    def __init__(self) -> None:
        self._by_id = False

    def __call__(self, row: Row, draft: Draft) -> Iterator[Pair]:
        if any(row.values.get(name) for name in _FILES):
            self._by_id = not any(row.values.get(name) for name in _OWN)
        draft.seed_by_id = self._by_id
        return _pairs(row, draft)


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.category = category_of(row.values, "category")
    draft.language = text_of(row.values, "language", "en")
    draft.given_id = row.label("pair_id", "") or None
    draft.pair_id = file_name(draft.given_id or _stem(row) or draft.pair_id)
    sources = _sources(row)
    yield Pair(
        draft.pair_id,
        draft.category,
        text_of(row.values, "instruction", hints=INSTRUCTION_HINTS),
        sources,
        language=draft.language,
        target_images=_first(row, _TARGETS),
        mask=next(iter(_first(row, _MASKS)), ""),
        given_id=draft.given_id,
        metadata=row.others(*_OURS),
    )


def _stem(row: Row) -> str:
    """The name of the source's file without its suffix; empty where none is named."""
    for name in _FILES:
        value = row.values.get(name)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str) and first:
            return Path(first).stem
    return ""


def _sources(row: Row) -> tuple[str, ...]:
    for name in _FILES:
        value = row.values.get(name)
        if value is None or value == "" or value == []:
            continue
        if name.endswith("s") and not isinstance(value, list):
            raise InputError(f"{name}: expected a list of file names (found {shown(value)}).")
        return row.pictures(name)
    found = _first(row, _PICTURES)
    if not found:
        raise InputError(f"input_file_name: is missing or empty{_hint(row)}")
    return found


def _first(row: Row, names: Sequence[str]) -> tuple[str, ...]:
    """Pictures of the first of some columns that has any; only those inside of the table, where
    the column may also hold words."""
    for name in names:
        value = row.values.get(name)
        if isinstance(value, Embedded) or (name.endswith("file_name") and value):
            return row.pictures(name)
    return ()


def _hint(row: Row) -> str:
    """The column that may have been meant, and how the settings can say so."""
    found = next((name for name in PICTURE_HINTS if row.values.get(name)), None)
    if found is None:
        there = ", ".join(map(str, row.values))
        return f"{hint(row.values, 'input_file_name', ())} The row has {there}."
    return (
        f"; did you mean {found!r}? Rename that column, or set `fields: {{image: {found}}}` in a "
        "file that --config names."
    )
