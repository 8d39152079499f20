"""Pairs as RE-Edit ships them: objects in JSON (a list, or `{"data": [...]}`) or JSONL.

An object has `subset`, `edit_instruction_en` and `edit_instruction_cn`, and the picture as
`src_img_b64` or, beside the file, as `original_image_path`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from apps.edit_benchmark.arrow_tables import SUFFIXES as ARROW
from apps.edit_benchmark.categories import category_of
from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import (
    INSTRUCTION_HINTS,
    PICTURE_HINTS,
    file_name,
    hint,
    inside,
    kept,
    text_of,
)
from apps.edit_benchmark.table_rows import SEPARATED, Row, rows_of
from core.errors import InputError

_INSTRUCTIONS = ("edit_instruction_en", "edit_instruction_cn", "edit_instruction", "instruction")
_EN, _CN = _INSTRUCTIONS[:2]
_READ = ("subset", "original_image_path", "src_img_b64", *_INSTRUCTIONS)


@DATA_SETS.add_one("re_edit")
class ReEdit:
    """Any file that is of no other form."""

    takes_any = True

    def fits(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() not in (*ARROW, *SEPARATED)

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        """English pairs, or Chinese where there is no English; after all of them, and only if they
        are asked for, the Chinese ones of rows that have both."""
        pairs = pairs_of(rows_of(path), _pairs, "pair")
        asked_for = [replace(pair, seed_by_id=True) for pair in pairs if pair.asked_by]
        return [pair for pair in pairs if not pair.asked_by] + asked_for


def _pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    position, values = row.number - 1, row.values
    draft.seed_by_id = False
    draft.category = category_of(values, "subset")
    given = text_of(values, "original_image_path", "")
    if given:
        draft.pair_id = f"{position:04d}_{file_name(Path(given).stem)}"
    field = next((f for f in _INSTRUCTIONS if values.get(f)), _EN)
    draft.language = "cn" if field.endswith("_cn") else "en" if values.get(field) else ""
    instruction = text_of(values, field, hints=INSTRUCTION_HINTS)
    pair = Pair(
        draft.pair_id,
        draft.category,
        instruction,
        (_source(row, given),),
        language=draft.language,
        metadata=kept({k: v for k, v in values.items() if k not in _READ}),
    )
    yield pair
    if field == _EN and values.get(_CN):
        yield replace(
            pair,
            pair_id=f"{draft.pair_id}_cn",
            instruction=text_of(values, _CN),
            language="cn",
            asked_by=("cn",),
        )


def _source(row: Row, given: str) -> str:
    """The picture: the embedded one, or the file beside the JSON."""
    if encoded := row.values.get("src_img_b64"):
        if not isinstance(encoded, str):
            row.text("src_img_b64")  # says what it is instead
        return row.encoded("src_img_b64")
    if not given:
        hinted = hint(row.values, "original_image_path", ("input_file_name", *PICTURE_HINTS))
        raise InputError(f"src_img_b64: is missing, and so is original_image_path{hinted}")
    return str(inside(row.folder, given, "original_image_path"))
