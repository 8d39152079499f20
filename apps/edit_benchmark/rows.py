"""What input forms have in common: the fields of rows, and names fit for files."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from loguru import logger

from apps.edit_benchmark.long_text import LongText, holds_long_text
from core.errors import InputError
from core.names import cleaned, cut
from core.validation import misspelt, shown

MAX_ID = 80  # characters
ALIKE = 0.8  # of 1: from here on a column's name is a misspelling of another
MAX_KEPT_BYTES = 8_000  # of a row's other columns: they travel with its task, and into its picture
_YES = ("true", "t", "yes", "y", "on", "1", "1.0")
# An empty cell says no, as null does.
_NO = ("false", "f", "no", "n", "off", "0", "0.0", "", "null", "none", "nan", "<na>")
_NUMPY = re.compile(r"^(?:np|numpy)\.(true|false)_?$")
# Columns that other data sets have for what is asked for here, the likeliest first.
INSTRUCTION_HINTS = (
    "edit_instruction", "prompt", "edit_prompt", "instruction_en", "edit_instruction_en", "edit",
    "instructions", "editing_instruction", "edit_text", "text", "caption", "instruction_cn",
)  # fmt: skip
PICTURE_HINTS = (
    "file_name", "image", "source", "source_image", "input_image", "input", "image_path",
    "input_path", "source_path", "image_file", "original_image", "original_image_path", "img",
    "picture", "image_name", "filename", "path",
)  # fmt: skip


def text_of(
    row: Mapping[str, Any], name: str, default: str | None = None, hints: Sequence[str] = ()
) -> str:
    """A text field; `default` where it is missing or empty.

    Args:
        hints: columns that may hold what is missing, for the error.

    Raises:
        InputError: no text, or missing without a default.
    """
    value = row.get(name)
    if _is_empty(value):
        if default is None:
            raise InputError(f"{name}: is missing or empty{hint(row, name, hints)}")
        return default
    if not isinstance(value, str):
        raise InputError(f"{name}: expected text (found {shown(value)}).")
    return value.whole() if isinstance(value, LongText) else value


def label_of(row: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A name, such as a category or an id; a number is taken as its text, 5.0 as 5.

    Raises:
        InputError: neither text nor a number, or missing without a default.
    """
    value = row.get(name)
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(row, name, default)


def truth_of(row: Mapping[str, Any], name: str, default: bool) -> bool:
    """A mark, also as tables and other tools write it: "False", "no", 0; empty means no.

    Args:
        default: where the row has no such column.

    Raises:
        InputError: neither yes nor no.
    """
    if name not in row:
        return default
    value = row[name]
    if _is_empty(value):
        return False
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        text = value.strip().lower()
        text = _NUMPY.sub(r"\1", text)
        if text in _YES or text in _NO:
            return text in _YES
    raise InputError(f"{name}: expected true or false (found {shown(value)}).")


def hint(row: Mapping[str, Any], name: str, names: Sequence[str]) -> str:
    """The end of a sentence that misses a column: the one that may have been meant for it."""
    found = next((n for n in names if not _is_empty(row.get(n))), None)
    if found is not None:
        return f"; did you mean {found!r}? Here that column is called {name!r}."
    return misspelt(row, [name], known=[name], alike=ALIKE)


def kept(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that nothing here reads, as far as they can be kept with a picture.

    What is no number becomes null; columns that are too large together are left out.
    """
    small: dict[str, Any] = {}
    left_out: list[str] = []
    room = MAX_KEPT_BYTES
    for name, value in columns.items():
        if holds_long_text(value):
            left_out.append(name)
            continue
        try:
            plain = _without_nan(value)
            size = len(json.dumps({name: plain}, allow_nan=False))
        except (RecursionError, ValueError, TypeError):  # bytes, among others, are no JSON
            continue
        if size > room:
            left_out.append(name)
            continue
        small[name] = plain
        room -= size
    if left_out:
        _tell_left_out(left_out[0], len(left_out) > 1)
    return small


@cache
def _tell_left_out(name: str, others: bool) -> None:
    columns = f"Columns {shown(name)} and others are" if others else f"Column {shown(name)} is"
    logger.info(
        f"{columns} not kept with every picture: there is room for {MAX_KEPT_BYTES} bytes a row."
    )


def _without_nan(value: Any) -> Any:
    """A copy of a JSON value with null for what is no finite number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, date | time | timedelta | Decimal):  # as tables have them
        return str(value)
    return value


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def file_name(text: str, most: int = MAX_ID) -> str:
    """`text` as one path component, readable in its own script."""
    return cut(cleaned(text.strip(), "-."), most).strip("._") or "pair"


def inside(folder: Path, name: str, what: str) -> Path:
    """A file below `folder`. Links are followed: downloaded datasets consist of them.

    Raises:
        InputError: the name leads out of it.
    """
    if "\0" in name:
        raise InputError(f"{what}: contains a NUL character.")
    file = Path(os.path.normpath(folder / name))
    if not file.is_relative_to(folder):
        raise InputError(f"{what}: {name!r} leads out of {folder}.")
    return file
