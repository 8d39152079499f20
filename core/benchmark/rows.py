"""What the three input forms have in common: JSON rows, their fields, names fit for files."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.names import cleaned, cut
from core.validation import shown

MAX_FILE_BYTES = 4_000_000_000
MAX_ID = 80  # characters


def json_lines(file: Path) -> Iterator[dict[str, Any] | InputError]:
    """The objects of a JSONL file; a bad line is an InputError in its place.

    JSON text may hold U+2028 and the like as they are: only a line feed ends a row.

    Raises:
        InputError: the file cannot be read.
    """
    for number, line in enumerate(_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield InputError(f"{file.name} line {number}: not valid JSON ({error}).")
            continue
        if isinstance(row, dict):
            yield row
        else:
            yield InputError(f"{file.name} line {number}: expected an object, found {shown(row)}.")


def json_list(file: Path) -> list[Any]:
    """The list in a JSON file.

    Raises:
        InputError: the file cannot be read or holds no list.
    """
    try:
        data = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}).") from None
    if not isinstance(data, list):
        raise InputError(f"{file}: expected a list of pairs, found a {type(data).__name__}.")
    return data


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{file}: larger than {MAX_FILE_BYTES // 10**9} GB.")
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start}).") from None


def text_of(row: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text field; `default` where it is missing or empty.

    Raises:
        InputError: no text, or missing without a default.
    """
    value = row.get(name)
    if value is None or value == "":
        if default is None:
            raise InputError(f"{name}: is missing or empty.")
        return default
    if not isinstance(value, str):
        raise InputError(f"{name}: expected text (found {shown(value)}).")
    return value


def file_name(text: str, most: int = MAX_ID) -> str:
    """`text` as one path component, readable in its own script."""
    return cut(cleaned(text.strip(), "-."), most).strip("._") or "pair"
