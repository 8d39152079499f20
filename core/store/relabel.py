"""Results whose own text is written anew, while their pixels stay.

A server names results as it keeps them. Here the text is replaced that `core.store.provenance`
writes, so that the file is the one that a worker of this run would have written, byte for byte; or
the one that other people may have, without paths of this machine.
"""

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from PIL.PngImagePlugin import PngInfo

from core.messages import Lease
from core.store.infotext import parameters_text
from core.store.provenance import (
    EXIF_START,
    JPEG_END,
    PARAMETERS_KEY,
    TASK_KEY,
    exif_of,
    exif_of_jpeg,
    record,
)
from core.tasks import EditTask, GenerateTask, task_from_json, task_to_json, with_paths

JPEG_SIGNATURE = b"\xff\xd8\xff"
_APP1, _START_OF_SCAN = 0xE1, 0xDA  # kinds of a JPEG's segments
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_OURS = {PARAMETERS_KEY.encode(), TASK_KEY.encode()}
_HEADER = 12  # bytes: "RIFF", the size, "WEBP"


class OtherResult(ValueError):
    """A result that was made from something else than this run asks for."""


def relabelled(data: bytes, lease: Lease) -> tuple[bytes, dict[str, Any]]:
    """A result as a worker with this lease would have written it, and the settings used.

    Raises:
        OtherResult: it says that it was made of other inputs, or by another model.
        ValueError: it is no whole result of this project.
    """
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png(data, lease)
        if data[:4] == b"RIFF":
            return _webp(data, lease)
        if data.startswith(JPEG_SIGNATURE):
            return _jpeg(data, lease)
        return _verdict(data, lease)
    except OtherResult:
        raise
    except Exception as error:  # whatever a torn file trips over
        raise ValueError("it is not a whole result of this project") from error


def with_other_paths(data: bytes, change: Callable[[str], str]) -> bytes:
    """A result with `change` applied to the paths of files of which it says that it was made.

    What is no whole result of this project, or has no such path, stays as it is.
    """
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png_with(data, change)
        if data[:4] == b"RIFF":
            return _webp_with(data, change)
        if data.startswith(JPEG_SIGNATURE):
            return _jpeg_with(data, change)
        told = json.loads(data)
        text = _told_with(told, change)
    except Exception:  # whatever a torn file trips over; whoever reads it will say so
        return data
    if text is None:
        return data
    told = json.dumps({**told, **json.loads(text)}, ensure_ascii=False, indent=1)
    return bytes(told.encode("utf-8", "backslashreplace"))


def _told_with(told: dict[str, Any], change: Callable[[str], str]) -> str | None:
    """What a result says, with other paths; None where they are the same."""
    task = task_from_json(told["task"])
    changed = with_paths(task, change)
    if changed == task:
        return None
    return json.dumps({**told, "task": task_to_json(changed)})


def _png_with(data: bytes, change: Callable[[str], str]) -> bytes:
    chunks = list(_png_chunks(data))
    own = next(c for c in chunks if c[0] in _TEXTS and _key(c[1]) == TASK_KEY.encode())
    text = _told_with(json.loads(own[1].partition(b"\0")[2]), change)
    if text is None:
        return data
    stream = io.BytesIO()
    stream.write(PNG_SIGNATURE)
    for chunk in chunks:
        body = TASK_KEY.encode() + b"\0" + text.encode() if chunk is own else chunk[1]
        _write_png_chunk(stream, chunk[0], body)
    return stream.getvalue()


def _webp_with(data: bytes, change: Callable[[str], str]) -> bytes:
    chunks = list(_riff_chunks(data))
    exif = next(body for kind, body in chunks if kind == b"EXIF")
    text = _told_with(json.loads(_description(exif)), change)
    return data if text is None else _riff(chunks, exif_of(text, _comment(exif)))


def _jpeg_with(data: bytes, change: Callable[[str], str]) -> bytes:
    exif = _exif_in_jpeg(data)
    text = _told_with(json.loads(_description(exif)), change)
    return data if text is None else _jpeg_of(data, exif_of_jpeg(text, _comment(exif)))


def _used(told: dict[str, Any], lease: Lease) -> dict[str, Any]:
    if told["fingerprint"] != lease.fingerprint:
        raise OtherResult("it was made of other files or settings, or by another model")
    return dict(told["used"])


def _texts(lease: Lease, used: dict[str, Any]) -> tuple[str, str]:
    assert isinstance(lease.task, GenerateTask | EditTask)
    parameters = parameters_text(lease.task, used, lease.lora_sha256, lease.loras_sha256)
    return parameters, json.dumps(record(lease, used))


def _verdict(data: bytes, lease: Lease) -> tuple[bytes, dict[str, Any]]:
    told = json.loads(data)
    used = _used(told, lease)
    made = record(lease, used)
    details = {key: value for key, value in told.items() if key not in made}
    text = json.dumps({**made, **details}, ensure_ascii=False, indent=1)
    return text.encode("utf-8", "backslashreplace"), used


def _png(data: bytes, lease: Lease) -> tuple[bytes, dict[str, Any]]:
    chunks = list(_png_chunks(data))
    own = [(kind, body) for kind, body in chunks if kind in _TEXTS and _key(body) in _OURS]
    told = next(body for kind, body in own if _key(body) == TASK_KEY.encode())
    used = _used(json.loads(told.partition(b"\0")[2]), lease)  # ASCII, so always a tEXt chunk
    parameters, text = _texts(lease, used)
    info = PngInfo()
    info.add_text(PARAMETERS_KEY, parameters)
    info.add_text(TASK_KEY, text)
    stream = io.BytesIO()
    stream.write(PNG_SIGNATURE)
    for chunk in chunks:
        if chunk == own[0]:
            for kind, body, *_ in info.chunks:
                _write_png_chunk(stream, kind, body)
        if chunk not in own:
            _write_png_chunk(stream, *chunk)
    return stream.getvalue(), used


def _key(body: bytes) -> bytes:
    return body.partition(b"\0")[0]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk.

    Raises:
        ValueError: a chunk is damaged, or the last one is missing.
    """
    place, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        (crc,) = struct.unpack_from(">I", data, place + 8 + length)
        if zlib.crc32(kind + body) != crc:
            raise ValueError(f"chunk {kind!r} is damaged")
        yield kind, body
        place += 12 + length


def _write_png_chunk(stream: io.BytesIO, kind: bytes, body: bytes) -> None:
    crc = zlib.crc32(kind + body)
    stream.write(struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", crc))


def _webp(data: bytes, lease: Lease) -> tuple[bytes, dict[str, Any]]:
    chunks = list(_riff_chunks(data))
    exif = next(body for kind, body in chunks if kind == b"EXIF")
    used = _used(json.loads(_description(exif)), lease)
    parameters, text = _texts(lease, used)
    return _riff(chunks, exif_of(text, parameters)), used


def _jpeg(data: bytes, lease: Lease) -> tuple[bytes, dict[str, Any]]:
    used = _used(json.loads(_description(_exif_in_jpeg(data))), lease)
    parameters, text = _texts(lease, used)
    return _jpeg_of(data, exif_of_jpeg(text, parameters)), used


def _exif_in_jpeg(data: bytes) -> bytes:
    """The EXIF of a JPEG file, of which no part is missing."""
    if not data.endswith(JPEG_END):
        raise ValueError("a part of the file is missing")
    start, end = _exif_segment(data)
    return data[start + 4 + len(EXIF_START) : end]


def _jpeg_of(data: bytes, exif: bytes) -> bytes:
    """A JPEG file with another EXIF."""
    start, end = _exif_segment(data)
    return data[:start] + struct.pack(">BBH", 0xFF, _APP1, len(exif) + 2) + exif + data[end:]


def _exif_segment(data: bytes) -> tuple[int, int]:
    """Where the segment with EXIF begins and ends, among those before the picture."""
    place = len(JPEG_SIGNATURE) - 1  # the signature has the next segment's first byte, too
    while True:
        mark, kind, length = struct.unpack_from(">BBH", data, place)
        if mark != 0xFF or kind == _START_OF_SCAN:
            raise ValueError("it has no EXIF")
        end = place + 2 + length
        if kind == _APP1 and data.startswith(EXIF_START, place + 4):
            return place, end
        place = end


def _riff(chunks: Iterable[tuple[bytes, bytes]], exif: bytes) -> bytes:
    """A WebP file of its chunks, with another EXIF."""
    stream = io.BytesIO()
    for kind, body in chunks:
        if kind == b"EXIF":
            body = exif
        padding = b"\0" * (len(body) % 2)
        stream.write(kind + struct.pack("<I", len(body)) + body + padding)
    content = stream.getvalue()
    return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WEBP" + content


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 != len(data):
        raise ValueError("a part of the file is missing")
    place = _HEADER
    while place < len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def _description(exif: bytes) -> bytes:
    """The first entry's text in EXIF as `exif_of` writes it."""
    length, place = struct.unpack_from(">II", exif, 14)
    return exif[place : place + length - 1]


def _comment(exif: bytes) -> str:
    """The user comment in EXIF as `exif_of` writes it."""
    (details,) = struct.unpack_from(">I", exif, 30)
    length, place = struct.unpack_from(">II", exif, details + 6)
    return exif[place + len(b"UNICODE\0") : place + length].decode("utf-16-be")
