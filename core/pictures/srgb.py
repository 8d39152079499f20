"""Pictures in the colours that a browser shows: 8-bit sRGB, transparency on white.

A picture's ICC profile says what its numbers mean. Without one, or with one that cannot be used,
they are sRGB; with a profile that is sRGB by another name they stay exactly as they are.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from core.pictures.eight_bits import Depth, depth_of, is_deep, to_eight_bits

if TYPE_CHECKING:
    from PIL import ImageCms

VERSION = 1  # raise it when pictures that are not plain sRGB come to be read in another way
MAX_PROFILE_BYTES = 16 * 1024**2  # of printers' tables; cameras' have a few kilobytes
MAX_KEPT_BYTES = 1024**2  # of a profile that is kept for the next picture with the same one
SAME = 2  # of 255: a profile that moves no colour by more is sRGB, rounded
_LEVELS = range(0, 256, 15)  # per channel, at which a profile is compared with sRGB
_GREY = ("1", "L", "LA", "La")
# A profile's colour space, as it is spelt there, and the modes of pictures that it can be for.
_INPUTS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_LAB = "LAB"


@dataclass(frozen=True)
class Colours:
    """What to do with a picture's numbers.

    Attributes:
        source: the mode that `transform` takes.
        transform: to sRGB; None where the numbers are sRGB.
        problem: why the picture's profile is passed over, if it is.
    """

    source: str = "RGB"
    transform: "ImageCms.ImageCmsTransform | None" = None
    problem: str | None = None


def colours_of(image: Image.Image) -> Colours:
    """Looks at mode and profile alone: the picture need not be decoded."""
    if image.mode == _LAB:
        return _lab()
    profile = image.info.get("icc_profile")
    if not profile:
        return Colours()
    if not isinstance(profile, bytes) or len(profile) > MAX_PROFILE_BYTES:
        return Colours(problem="it is too large")
    kind = image.mode if image.mode == "CMYK" else "L" if _is_grey(image.mode) else "RGB"
    # A file of a few kilobytes may hold the largest profile; those of a few would fill the memory.
    of_profile = _kept_of_profile if len(profile) <= MAX_KEPT_BYTES else _of_profile
    return of_profile(profile, kind)


def is_plain(image: Image.Image) -> bool:
    """Whether the numbers of a picture, as it was opened, are 8 or 16 bits of sRGB."""
    if image.mode in ("I", "F") or depth_of(image) != Depth():
        return False
    return colours_of(image).transform is None


def to_srgb(image: Image.Image, depth: Depth) -> Image.Image:
    """The picture in mode RGB.

    Args:
        depth: of the picture as it was opened.
    """
    colours = colours_of(image)
    if is_deep(image.mode):
        image = to_eight_bits(image, depth)
    if not image.has_transparency_data:
        return _converted(image, colours)
    layer = image.convert("LA") if image.mode == "La" else image
    layer = layer.convert("RGBA")
    if colours.transform is not None:
        alpha = layer.getchannel("A")
        layer = _converted(layer.convert("RGB"), colours).convert("RGBA")
        layer.putalpha(alpha)
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _converted(image: Image.Image, colours: Colours) -> Image.Image:
    if colours.transform is None:
        return image.convert("RGB")
    from PIL import ImageCms

    source = image if image.mode == colours.source else image.convert(colours.source)
    result = ImageCms.applyTransform(source, colours.transform)
    assert result is not None
    return result


def _is_grey(mode: str) -> bool:
    return mode in _GREY or is_deep(mode)


def _of_profile(data: bytes, kind: str) -> Colours:
    """`kind`: RGB, L or CMYK, what the picture's numbers are."""
    from PIL import ImageCms  # main starts without it

    try:
        profile = ImageCms.getOpenProfile(BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        source = _INPUTS.get(space)
        # A grey picture may come with the profile of the colours that it was made from.
        if source is None or (source != kind and (source, kind) != ("RGB", "L")):
            return Colours(problem=f"it is for {space or 'unknown'} colours, the picture is not")
        transform = ImageCms.buildTransform(profile, _srgb(), source, "RGB")
        if source != "CMYK" and _changes_nothing(transform, source):
            return Colours()
        return Colours(source, transform)
    except Exception as error:  # whatever a damaged profile ends in
        return Colours(problem=" ".join(str(error).split())[:100] or type(error).__name__)


_kept_of_profile = lru_cache(maxsize=64)(_of_profile)


@lru_cache(maxsize=1)
def _lab() -> Colours:
    from PIL import ImageCms

    lab = ImageCms.createProfile("LAB")
    return Colours(_LAB, ImageCms.buildTransform(lab, _srgb(), _LAB, "RGB"))


@lru_cache(maxsize=1)
def _srgb() -> "ImageCms.ImageCmsProfile":
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _changes_nothing(transform: "ImageCms.ImageCmsTransform", mode: str) -> bool:
    from PIL import ImageCms

    if mode == "L":
        probe = Image.frombytes("L", (256, 1), bytes(range(256)))
    else:
        colours = bytes(v for r in _LEVELS for g in _LEVELS for b in _LEVELS for v in (r, g, b))
        probe = Image.frombytes("RGB", (len(colours) // 3, 1), colours)
    shown = ImageCms.applyTransform(probe, transform)
    assert shown is not None
    before, after = probe.convert("RGB").tobytes(), shown.tobytes()
    return all(abs(a - b) <= SAME for a, b in zip(before, after, strict=True))
