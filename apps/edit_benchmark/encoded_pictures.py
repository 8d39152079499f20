"""Pictures that stand as base64 text, or as a data URL, in the rows of a JSON file."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pybase64

from apps.edit_benchmark.json_rows import json_rows
from apps.edit_benchmark.long_text import LongText
from core.errors import InputError
from core.pictures.source_images import MAX_BYTES

DATA_URL = "data:"
_DATA_URL = DATA_URL.encode()
Picture = bytes | InputError


def encoded_pictures(
    file: Path, column: str, rows: Mapping[int, LongText | None]
) -> Iterator[tuple[int, list[Picture]]]:
    """The pictures of some rows, or why one is none; only one text at a time is in memory.

    Args:
        rows: from 0, each with its text where that is known to stand alone in the cell.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    before: tuple[bytes, Picture] = b"", b""
    for row, texts in _cells(file, column, rows):
        found: list[Picture] = []
        for text in texts:
            if isinstance(text, InputError):
                found.append(text)
                continue
            # Rows of one picture, as of its languages, follow each other: it is the same object.
            if text != before[0]:
                before = text, decoded(text)
            found.append(before[1])
        yield row, found


def _cells(
    file: Path, column: str, rows: Mapping[int, LongText | None]
) -> Iterator[tuple[int, Iterable[Picture]]]:
    for number, known in sorted(rows.items()):
        if known is not None:
            yield number, [_text(known)]
    left = {number for number, known in rows.items() if known is None}
    if left:
        for number, (_, row) in zip(range(max(left) + 1), json_rows(file), strict=False):
            if number in left:
                yield number, _texts(row, column)


def _texts(row: Any, column: str) -> Iterator[Picture]:
    """What stands in a cell; empty for what is no encoded picture."""
    value = row.get(column) if isinstance(row, Mapping) else None
    if not isinstance(value, list):
        yield _text(value)
        return
    for each in value:  # beside names of files
        yield _text(each) if isinstance(each, str) and each.startswith(DATA_URL) else b""


def _text(value: Any) -> Picture:
    if isinstance(value, LongText):
        return value.content() if value.length <= MAX_BYTES else _too_large()
    return value.encode("utf-8", "replace") if isinstance(value, str) else b""


def decoded(text: bytes) -> Picture:
    """The picture, or why it is none."""
    encoded = text.partition(b",")[2] if text.startswith(_DATA_URL) else text
    if len(encoded) > MAX_BYTES:
        return _too_large()
    try:
        return pybase64.b64decode(encoded, validate=True)
    except ValueError:
        joined = b"".join(encoded.split())  # without its line breaks
    try:
        return pybase64.b64decode(joined, validate=True)
    except ValueError:
        pass
    try:  # slowly, but it lets padding be that stands behind full groups
        return base64.b64decode(joined, validate=True)
    except ValueError as error:
        return InputError(f"not base64 ({error}).")


def _too_large() -> InputError:
    return InputError(f"larger than {MAX_BYTES // 1024**2} MiB.")
