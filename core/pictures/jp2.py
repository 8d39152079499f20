"""The colour profile of a JPEG 2000 file, which Pillow does not read."""

from pathlib import Path
from typing import BinaryIO

from core.pictures.srgb import MAX_PROFILE_BYTES

_PROFILES = (2, 3)  # ways of saying colours: restricted and any ICC profile
_HEADER = b"jp2h"
_COLOURS = b"colr"


def icc_profile(file: Path) -> bytes | None:
    """The ICC profile in the header of a .jp2 file; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        end = stream.seek(0, 2)
        header = _box(stream, 0, end, _HEADER)
        place = header and _box(stream, *header, _COLOURS)
        if not place or place[1] - place[0] > MAX_PROFILE_BYTES:
            return None
        stream.seek(place[0])
        content = stream.read(place[1] - place[0])
    # Way, precedence and approximation are a byte each.
    return content[3:] or None if content[:1] and content[0] in _PROFILES else None


def _box(stream: BinaryIO, start: int, end: int, name: bytes) -> tuple[int, int] | None:
    """Find the content of the first box of this name between `start` and `end`."""
    while start + 8 <= end:
        stream.seek(start)
        size, kind = int.from_bytes(stream.read(4), "big"), stream.read(4)
        head = 8
        if size == 1:  # the size does not fit in four bytes
            size, head = int.from_bytes(stream.read(8), "big"), 16
        stop = start + size if size else end  # 0: up to the end
        if (size and size < head) or stop > end:
            return None
        if kind == name:
            return start + head, stop
        start = stop
    return None
