"""The header of a safetensors file, read by its content and without torch.

Format: https://huggingface.co/docs/safetensors/index#format
"""

import json
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
LENGTH_BYTES = 8  # a file begins with its header's length, little-endian
PICKLE_STARTS = (b"\x80", b"PK\x03\x04")  # bare pickle, and the zip that torch.save writes


class NotSafetensors(ValueError):
    """What a file is instead, as the end of a sentence that begins with its path."""


def read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """Tensors by name, with `__metadata__` beside them, and where in the file the data begins.

    Raises:
        NotSafetensors: the content is something else.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(LENGTH_BYTES + 1)
        length = int.from_bytes(start[:LENGTH_BYTES], "little")
        plausible = 2 <= length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES)
        # The length of one header in 32 begins as a pickle does: its first bracket decides.
        if not (plausible and start.endswith(b"{")) and start.startswith(PICKLE_STARTS):
            raise NotSafetensors(
                "is a pickle file whatever its name says, and pickle can run code; convert it to "
                "safetensors."
            )
        if not plausible:
            raise NotSafetensors("is not a safetensors file, or is cut short.")
        stream.seek(LENGTH_BYTES)
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise NotSafetensors("has a damaged safetensors header.")
    return header, LENGTH_BYTES + length
