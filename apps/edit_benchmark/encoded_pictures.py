"""Pictures that stand as base64 text, or as a data URL, in the rows of a JSON file."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from apps.edit_benchmark.json_rows import json_rows
from core.errors import InputError
from core.pictures.source_images import MAX_BYTES

DATA_URL = "data:"


def encoded_pictures(
    file: Path, column: str, rows: Sequence[int]
) -> Iterator[tuple[int, list[bytes | InputError]]]:
    """The pictures of some rows, or why one is none.

    Args:
        rows: from 0.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    wanted = set(rows)
    last = max(wanted, default=-1)
    for number, (_, row) in enumerate(json_rows(file)):
        if number in wanted:
            text = row.get(column) if isinstance(row, Mapping) else None
            yield number, [decoded(text) if isinstance(text, str) else b""]
        if number >= last:
            return


def decoded(text: str) -> bytes | InputError:
    """The picture, or why it is none."""
    encoded = text.partition(",")[2] if text.startswith(DATA_URL) else text
    if len(encoded) > MAX_BYTES:
        return InputError(f"larger than {MAX_BYTES // 1024**2} MiB.")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        pass
    try:  # with its line breaks
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        return InputError(f"not base64 ({error}).")
