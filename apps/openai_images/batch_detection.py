"""Whether a file holds requests of OpenAI's Batch API, by its first lines."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from apps.openai_images.json_bodies import NotJson, read_json

MOST_LINE = 64 * 1024**2  # bytes, as of a request by itself
LOOKED_AT = 20  # lines by which a batch file is told from others
_BLANK = b" \t\r\n"
_MARK = b"\xef\xbb\xbf"  # byte order mark


def is_batch_file(path: Path) -> bool:
    """Whether a file begins with requests: no other JSONL has `url` and `body`."""
    return any(raw.startswith(b"{") and b'"body"' in raw and _asks(raw) for raw in _first(path))


def means_requests(path: Path) -> bool:
    """Whether one of a file's first lines speaks of a `custom_id`, however it is written."""
    return any(b"custom_id" in raw for raw in _first(path))


def lines_of(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Number and content of each line that is not blank; None for one that is too long."""
    number = 0
    while raw := stream.readline(MOST_LINE + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(_MARK)
        if len(raw) > MOST_LINE and not raw.endswith(b"\n"):
            raw = b""
            while (more := stream.readline(1024**2)) and not more.endswith(b"\n"):
                pass
            yield number, None
        elif content := raw.strip(_BLANK):
            yield number, content


def _first(path: Path) -> Iterator[bytes]:
    try:
        if not path.is_file():
            return  # a pipe is read once
        with path.open("rb") as stream:
            for _, raw in islice(lines_of(stream), LOOKED_AT):
                if raw is not None:
                    yield raw
    except (OSError, ValueError):  # whoever reads it says why it cannot be read
        pass


def _asks(raw: bytes) -> bool:
    try:
        value = read_json(raw)
    except NotJson:
        return False
    return isinstance(value, dict) and isinstance(value.get("body"), dict) and "url" in value
