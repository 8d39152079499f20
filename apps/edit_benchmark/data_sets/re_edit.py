"""Pairs as RE-Edit ships them: one JSON list of objects.

An object has `subset`, `edit_instruction_en`, and the picture as `src_img_b64` or, beside the file,
as `original_image_path`.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.edit_benchmark.categories import UNSORTED, category_of
from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.rows import (
    INSTRUCTION_HINTS,
    PICTURE_HINTS,
    file_name,
    hint,
    inside,
    json_list,
    kept,
    text_of,
)
from core.errors import InputError
from core.pictures.source_images import MAX_BYTES
from core.store.outputs import make_folder, write_atomically
from core.validation import shown

_KEPT = ("original_description_en", "rationale_short_en")
_INSTRUCTIONS = ("edit_instruction_en", "edit_instruction_cn", "edit_instruction", "instruction")


@DATA_SETS.add_one("re_edit")
class ReEdit:
    """Any file that is of no other form; embedded pictures are written below the work folder."""

    takes_any = True

    def fits(self, path: Path) -> bool:
        return path.is_file()

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        return [_pair(row, path, work_folder, i) for i, row in enumerate(json_list(path))]


def _pair(row: Any, file: Path, work_folder: Path, position: int) -> Pair:
    name, category, language = f"pair_{position:04d}", UNSORTED, ""
    try:
        if not isinstance(row, Mapping):
            raise InputError(f"Expected an object, found {shown(row)}.")
        category = category_of(row, "subset")
        given = text_of(row, "original_image_path", "")
        if given:
            name = f"{position:04d}_{file_name(Path(given).stem)}"
        field = next((f for f in _INSTRUCTIONS if row.get(f)), _INSTRUCTIONS[0])
        language = "cn" if field.endswith("_cn") else "en" if row.get(field) else ""
        instruction = text_of(row, field, hints=INSTRUCTION_HINTS)
        return Pair(
            name,
            category,
            instruction,
            (_source(row, given, file, work_folder),),
            language=language,
            metadata=kept({k: row[k] for k in _KEPT if k in row}),
        )
    except InputError as problem:
        return Pair(name, category, problem=problem, language=language)


def _source(row: Mapping[str, Any], given: str, file: Path, work_folder: Path) -> str:
    """Path of the picture: the embedded one, or the file beside the JSON."""
    if row.get("src_img_b64"):
        return _unpacked(text_of(row, "src_img_b64"), work_folder)
    if not given:
        hinted = hint(row, "original_image_path", ("input_file_name", *PICTURE_HINTS))
        raise InputError(f"src_img_b64: is missing, and so is original_image_path{hinted}")
    path = inside(file.parent, given, "original_image_path")
    return str(path)


def _unpacked(text: str, work_folder: Path) -> str:
    """The picture of a base64 text (or data URL) as a file named by its content."""
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    if len(encoded) > MAX_BYTES:
        raise InputError(f"src_img_b64: larger than {MAX_BYTES // 1024**2} MiB.")
    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"src_img_b64: not base64 ({error}).") from None
    path = work_folder / f"{hashlib.sha256(data).hexdigest()[:32]}.img"
    if not path.is_file() or path.stat().st_size != len(data):
        make_folder(work_folder)
        write_atomically(path, data)
    return str(path)
