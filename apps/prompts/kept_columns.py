"""Columns and keys that mean nothing to the program, and are kept with the picture as metadata."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

MAX_KEPT_BYTES = 8_000  # of one entry: they travel with its task


def kept_columns(others: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Those that are kept, and the names of those that are too large or cannot be JSON."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    room = MAX_KEPT_BYTES
    for key, value in others.items():
        with suppress(TypeError, ValueError, RecursionError):
            size = len(json.dumps({key: value}, allow_nan=False))
            if size <= room:
                kept[str(key)] = value
                room -= size
                continue
        left_out.append(str(key))
    return kept, left_out
