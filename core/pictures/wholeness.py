"""Whether a picture's file has its end, told without decoding it.

A download or a copy that broke off leaves a file with a sound beginning. To decode each picture
would tell, and take minutes for thousands; of PNG and JPEG the end of the file tells at once. A
WebP that is cut cannot be opened.
"""

import os
from pathlib import Path
from typing import BinaryIO

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_MARKER, _SCAN = 0xFF, 0xDA  # of a JPEG's segments; of the one behind which its pixels stand
_MOST_SEGMENTS = 10_000  # before its pixels; cameras write a few dozen
_TAIL = 4096  # bytes at the end, where the picture's end usually is
_BLOCK = 2**20


def may_be_cut(file: Path) -> bool:
    """Whether a PNG or JPEG seems to have no end; of other formats nothing is known.

    What programs append behind the picture is no matter. One without an end may be readable all the
    same: whoever has to know decodes it.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        start = stream.read(len(_PNG))
        size = stream.seek(0, os.SEEK_END)
        if start.startswith(_PNG):
            return not _has(stream, _PNG_END, len(_PNG), size)
        if start.startswith(_JPEG):
            return not _has(stream, _JPEG_END, _pixels_of_jpeg(stream), size)
    return False


def _has(stream: BinaryIO, mark: bytes, begin: int, size: int) -> bool:
    """Whether a mark stands behind a place."""
    place = max(begin, size - _TAIL)
    stream.seek(place)
    if mark in stream.read(_TAIL):
        return True
    stream.seek(begin)
    before = b""
    while begin < place and (block := stream.read(_BLOCK)):
        if mark in before + block:
            return True
        before, begin = block[1 - len(mark) :], begin + len(block)
    return False


def _pixels_of_jpeg(stream: BinaryIO) -> int:
    """Where a JPEG's pixels begin: a thumbnail in the segments before has an end of its own."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        stream.seek(place)
        head = stream.read(4)
        if len(head) < 4 or head[0] != _MARKER or head[1] == _SCAN:
            break
        place += 2 + int.from_bytes(head[2:], "big")
    return place
