"""The body of an answer with pictures, made from their files one by one."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from apps.openai_images.encoding import Read, encoded, size_of
from apps.openai_images.parameters import AUTO, Format, ImageParameters


class TokenDetails(TypedDict):
    """Tokens that were read, by what they stood for."""

    image_tokens: int
    text_tokens: int


class Usage(TypedDict):
    """Tokens, all 0: nothing is metered in them here, and clients want numbers."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    total_tokens: int


class DrawnPicture(TypedDict):
    """One picture: its content in base64, or its address."""

    b64_json: NotRequired[str]
    url: NotRequired[str]
    seed: int


class _Before(TypedDict):
    created: int
    background: Literal["opaque"]
    output_format: Format
    quality: NotRequired[str]
    size: str


class _After(TypedDict):
    usage: Usage
    safety_identifier: NotRequired[str]


class ImagesAnswer(_Before, _After):
    """Pictures as OpenAI's Images API answers with them.

    Attributes:
        created: Unix time.
        quality: as it was asked for; not there where that was `auto`.
        size: of the pictures, as 1024x768.
        data: the pictures in the order of their seeds.
    """

    data: list[DrawnPicture]


USAGE: Usage = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
BACKGROUND: Literal["opaque"] = "opaque"


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
    before: _Before = {
        "created": created,
        "background": BACKGROUND,
        "output_format": wanted.output_format,
        "size": size_of(files[0]),
    }
    if wanted.quality is not None:
        before["quality"] = wanted.quality
    yield compact(before)[:-1] + b',"data":['
    for place, (file, seed) in enumerate(zip(files, seeds, strict=True)):
        if place:
            yield b","
        if wanted.as_url:
            yield compact({"url": url(place), "seed": seed})
        else:
            picture = encoded(file, wanted.output_format, wanted.output_compression, read)
            yield b'{"b64_json":"' + base64.b64encode(picture) + b'","seed":%d}' % seed
    after: _After = {"usage": USAGE}
    if wanted.identifier is not None:
        after["safety_identifier"] = wanted.identifier
    yield b"]," + compact(after)[1:]


def compact(value: Mapping[str, Any]) -> bytes:
    """A JSON object without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()
