"""Pictures of more than 8 bits a sample as 8-bit grey; Pillow's own conversion would clip them.

16-bit grey is taken by its high bytes, as Pillow reads 16-bit colour. Floats and 32-bit integers
say nothing of their white. It is the least of 1, 255, 1023, 4095, 16383 and 65535 that holds the
brightest value, else the brightest value itself; floats may exceed it, as highlights and
sharpened edges do. Black is 0, or the darkest value where that lies far below 0.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    import numpy as np

WHITES = (1, *(2**bits - 1 for bits in (8, 10, 12, 14, 16)))
_HIGHLIGHTS = 4.0  # times white, in a picture of floats from 0 to 1
_OVERSHOOT = 1.25  # times white, in other pictures of floats
_UNDERSHOOT = -0.5  # times white: from here on a negative value is more than that

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of a TIFF
_WHITE_IS_ZERO = 0
_UNSIGNED = 1


@dataclass(frozen=True)
class Depth:
    """What a file says of its samples, and Pillow's picture of it does not.

    Attributes:
        bits: of a sample in a picture of mode I;16.
        unsigned: the 32-bit integers have no sign; Pillow gives them one.
        inverted: 0 is white. Pillow sees to that up to 8 bits.
    """

    bits: int = 16
    unsigned: bool = False
    inverted: bool = False


def is_deep(mode: str) -> bool:
    """Whether a picture of this mode has more than 8 bits a sample."""
    return mode in ("I", "F") or mode.startswith("I;16")


def depth_of(image: Image.Image) -> Depth:
    """What a picture's file says of its samples; a turned copy has lost it."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None or not is_deep(image.mode):
        return Depth()
    bits = _first(tags.get(_BITS, 1))
    return Depth(
        bits=min(bits, 16),
        unsigned=bits == 32 and _first(tags.get(_SAMPLE_FORMAT, _UNSIGNED)) == _UNSIGNED,
        inverted=tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO,
    )


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def to_eight_bits(image: Image.Image, depth: Depth) -> Image.Image:
    """A deep picture in mode L; a transparent level of 16-bit grey becomes white."""
    import numpy as np  # main, which decodes nothing, starts without it

    levels = np.asarray(image)
    if image.mode in ("I", "F"):
        if depth.unsigned:
            levels = levels.view(np.uint32)
        eight = _scaled(levels.astype(np.float32), floats=image.mode == "F")
    else:
        eight = (levels >> (depth.bits - 8)).astype(np.uint8)
    if depth.inverted:
        eight = 255 - eight
    transparent = image.info.get("transparency")
    if transparent is not None:
        eight = np.where(levels == transparent, np.uint8(255), eight)
    return Image.fromarray(eight)


def _scaled(values: "np.ndarray[Any, np.dtype[np.float32]]", floats: bool) -> Any:
    """Scale values to 0..255; what is no number becomes black. `values` are overwritten."""
    import numpy as np

    finite = values[np.isfinite(values)]
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    white = next((w for w in WHITES if highest <= w * _spare(w, floats)), highest)
    black = 0.0 if lowest >= white * _UNDERSHOOT else lowest
    np.nan_to_num(values, copy=False, nan=black, posinf=white, neginf=black)
    np.clip(values, black, white, out=values)
    values -= black
    values *= 255 / (white - black)
    return np.rint(values, out=values).astype(np.uint8)


def _spare(white: float, floats: bool) -> float:
    if not floats:
        return 1.0
    return _HIGHLIGHTS if white == 1 else _OVERSHOOT
