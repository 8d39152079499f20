"""The body of an answer with pictures, made from their files one by one."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.openai_images.encoding import Read, encoded, size_of
from apps.openai_images.parameters import AUTO, Format, ImageParameters

# Nothing is metered in tokens here; the client's types want numbers.
USAGE: Mapping[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
BACKGROUND = "opaque"


@dataclass(frozen=True)
class Wanted:
    """How a request wants its pictures handed out; see `ImageParameters`."""

    n: int
    output_format: Format
    output_compression: int
    as_url: bool
    quality: str | None
    identifier: str | None

    @classmethod
    def by(cls, asked: ImageParameters) -> "Wanted":
        """What a request's parameters say of it."""
        return cls(
            asked.n,
            asked.output_format,
            asked.output_compression,
            asked.response_format == "url",
            None if asked.quality == AUTO else asked.quality,
            asked.identifier,
        )


def body_parts(
    wanted: Wanted,
    created: int,
    files: Sequence[Path],
    seeds: Sequence[int],
    url: Callable[[int], str],
    read: Read = Path.read_bytes,
) -> Iterator[bytes]:
    """The JSON of an answer, in parts of which none holds more than one picture.

    Args:
        created: Unix time.
        files: of the pictures, PNG.
        url: the address of a picture by its place.
        read: gives the content of a file.

    Raises:
        OSError: a file is gone, or damaged.
    """
    before = {
        "created": created,
        "background": BACKGROUND,
        "output_format": wanted.output_format,
        "quality": wanted.quality,
        "size": size_of(files[0]),
    }
    yield compact({k: v for k, v in before.items() if v is not None})[:-1] + b',"data":['
    for place, (file, seed) in enumerate(zip(files, seeds, strict=True)):
        if place:
            yield b","
        if wanted.as_url:
            yield compact({"url": url(place), "seed": seed})
        else:
            picture = encoded(file, wanted.output_format, wanted.output_compression, read)
            yield b'{"b64_json":"' + base64.b64encode(picture) + b'","seed":%d}' % seed
    after = {"usage": USAGE, "safety_identifier": wanted.identifier}
    yield b"]," + compact({k: v for k, v in after.items() if v is not None})[1:]


def compact(value: Mapping[str, Any]) -> bytes:
    """A JSON object without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()
