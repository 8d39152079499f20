"""Pictures that a user gives: checked by main without decoding, decoded by a worker.

Both sides refuse what could exhaust memory: a small file may hold a picture of gigapixels.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from core.errors import InputError
from core.paths import user_path
from core.validation import shown

MAX_PIXELS = 100_000_000  # far above any camera's picture, far below what fills memory
MAX_BYTES = 512 * 1024**2
MAX_REASON = 200  # characters of Pillow's words that a message repeats
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SIZE_STEP = 32  # pixels: sizes that every known editing model takes
WHITE_16 = 0xFFFF  # of 16-bit grey
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 are turned by a quarter
_QUARTER_TURNS = range(5, 9)


@dataclass(frozen=True)
class SourceImage:
    """What main knows of a picture: its content's hash and its size in pixels, as displayed."""

    sha256: str
    width: int
    height: int


def inspect_image(path: str | Path, what: str = "source_images") -> SourceImage:
    """Check a picture's header and hash its content.

    Args:
        what: the field to name in errors.

    Raises:
        InputError: no readable picture, or one that is too large.
    """
    try:
        file = user_path(path, what)
        if not file.is_file():
            raise InputError(f"{what}: {shown(str(path))} is not a file.")
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{what}: {path} is larger than {MAX_BYTES // 1024**2} MiB.")
        with _quiet(), _opened(file, what) as image:
            width, height = image.size
            turned = _orientation(image) in _QUARTER_TURNS
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except InputError:
        raise
    except Exception as error:  # whatever Pillow's readers trip over
        raise InputError(f"{what}: {shown(str(path))} cannot be read: {_line(error)}.") from None
    return SourceImage(digest, height, width) if turned else SourceImage(digest, width, height)


def read_image(
    path: str | Path, sha256: str | None = None, what: str = "source_images"
) -> Image.Image:
    """The whole picture in RGB, as displayed; transparency lies on white.

    Args:
        sha256: what the content must hash to.

    Raises:
        InputError: damaged, cut short, too large, or changed since it was checked.
    """
    file = user_path(path, what)
    try:
        if sha256 is not None:
            with file.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    raise InputError(f"{what}: {path} changed during the run; run again.")
        with _quiet(), _opened(file, what) as image:
            upright = ImageOps.exif_transpose(image)
            return _on_white(upright)
    except InputError:
        raise
    except Exception as error:  # whatever Pillow's readers trip over
        raise InputError(f"{what}: {path} is damaged or cut short: {_line(error)}.") from None


def size_for(width: int, height: int, area: int) -> tuple[int, int]:
    """Width and height of about `area` pixels with the aspect ratio of the given ones."""
    factor = math.sqrt(area / (width * height))
    sides = (round(side * factor / SIZE_STEP) * SIZE_STEP for side in (width, height))
    return tuple(max(SIZE_STEP, side) for side in sides)  # type: ignore[return-value]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings: a picture is taken or refused, and our limit of size follows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_REASON] or type(error).__name__


def _orientation(image: Image.Image) -> int | None:
    """Of the header alone: for a PNG without EXIF in front Pillow would decode the picture."""
    if image.format == "PNG" and "exif" not in image.info:
        return None
    return image.getexif().get(_ORIENTATION)


def _opened(file: Path, what: str) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise InputError(f"{what}: {file} is no picture ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError:
        raise InputError(_too_large(file, what)) from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise InputError(_too_large(file, what))
    return image


def _too_large(file: Path, what: str) -> str:
    return f"{what}: {file} has more than {MAX_PIXELS // 10**6} megapixels."


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its high bytes, as Pillow reads 16-bit colour: converting would clip it."""
    import numpy as np  # main, which decodes nothing, starts without it

    levels = np.asarray(image)
    transparent = image.info.get("transparency")
    if transparent is not None:
        levels = np.where(levels == transparent, WHITE_16, levels)
    return Image.fromarray((levels >> 8).astype(np.uint8))
