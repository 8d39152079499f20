"""Pictures that a user gives: checked by main, as a rule without decoding, decoded by a worker.

Both sides refuse what could exhaust memory: a small file may hold a picture of gigapixels.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from core.errors import InputError
from core.lfs_pointers import HOW_TO_GET, is_pointer
from core.paths import user_path
from core.pictures import jp2, srgb
from core.pictures.eight_bits import depth_of
from core.pictures.wholeness import may_be_cut
from core.validation import shown_path

MAX_PIXELS = 100_000_000  # far above any camera's picture, far below what fills memory
MAX_BYTES = 512 * 1024**2
MAX_REASON = 200  # characters of Pillow's words that a message repeats
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000")
CONTAINED = ("AVIF", "HEIF")  # told apart by the brands in the first bytes of their container
SIZE_STEP = 32  # pixels: sizes that every known editing model takes
AREA_FOR_RATIO = 10  # percent of area that a size may be off for one percent less of stretching
MOST_AREA = 1.5  # times the area, and the part of it, that such a size may have
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 are turned by a quarter
_QUARTER_TURNS = range(5, 9)
_OPAQUE = 255
_START = 64  # bytes of a file that hold its container's brands
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Pillow refuses a PNG whose profile is larger than this, and has one megabyte of its own: printers'
# profiles have more. What all texts of a file may take together stays as it is.
PngImagePlugin.MAX_TEXT_CHUNK = srgb.MAX_PROFILE_BYTES
_HEIF_OPTIONS = {"thumbnails": False, "depth_images": False, "aux_images": False}


@dataclass(frozen=True)
class SourceImage:
    """What main knows of a picture.

    Attributes:
        sha256: of the file.
        width, height: pixels, as displayed.
        reading: the rules by which its numbers become colours; empty where they are sRGB.
    """

    sha256: str
    width: int
    height: int
    reading: str = ""


def inspect_image(path: str | Path, what: str = "source_images") -> SourceImage:
    """Check a picture's header and end, and hash its content.

    Args:
        what: the field to name in errors.

    Raises:
        InputError: no readable picture, or one that is too large or cut short.
    """
    try:
        file = user_path(path, what)
        if not file.is_file():
            raise InputError(f"{what}: {shown_path(str(path))} is not a file.")
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{what}: {path} is larger than {MAX_BYTES // 1024**2} MiB.")
        if is_pointer(file):
            raise InputError(
                f"{what}: {path} is a Git LFS pointer and not the picture: {HOW_TO_GET}."
            )
        with _quiet(), _opened(file, what) as image:
            width, height = image.size
            turned = _orientation(image) in _QUARTER_TURNS
            problem = srgb.colours_of(image).problem
            reading = "" if srgb.is_plain(image) else f"colours {srgb.VERSION}"
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if may_be_cut(file):
            read_image(path, what=what)
    except InputError:
        raise
    except Exception as error:  # whatever Pillow's readers trip over
        raise InputError(
            f"{what}: {shown_path(str(path))} cannot be read: {_line(error)}."
        ) from None
    if problem is not None:
        _warn_once(f"{what}: {path}: its colour profile is passed over: {problem}.")
    if turned:
        width, height = height, width
    return SourceImage(digest, width, height, reading)


def read_image(
    path: str | Path, sha256: str | None = None, what: str = "source_images"
) -> Image.Image:
    """The whole picture in sRGB, as displayed; transparency lies on white.

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
            depth = depth_of(image)
            upright = ImageOps.exif_transpose(image)
            return srgb.to_srgb(upright, depth)
    except InputError:
        raise
    except Exception as error:  # whatever Pillow's readers trip over
        raise InputError(_damaged(path, what, error)) from None


def read_transparency(path: str | Path, what: str) -> Image.Image | None:
    """The alpha channel of a picture, as displayed; None where all of it is opaque.

    Args:
        what: the field to name in errors.

    Raises:
        InputError: damaged, cut short or too large.
    """
    try:
        with _quiet(), _opened(user_path(path, what), what) as image:
            if not image.has_transparency_data:
                return None
            upright = ImageOps.exif_transpose(image)
            whole = upright if "A" in upright.getbands() else upright.convert("RGBA")
            alpha = whole.getchannel("A")
    except InputError:
        raise
    except Exception as error:  # whatever Pillow's readers trip over
        raise InputError(_damaged(path, what, error)) from None
    return None if alpha.getextrema() == (_OPAQUE, _OPAQUE) else alpha


@lru_cache(maxsize=4096)
def size_for(width: float, height: float, area: int) -> tuple[int, int]:
    """Width and height of about `area` pixels with the aspect ratio of the given ones.

    Each side is a multiple of SIZE_STEP; of the sizes near the area the least wrong one counts:
    were each side only rounded by itself, a 4:3 picture would be stretched by 1 % at a megapixel,
    and by up to 25 % at small areas, and its edit would not lie on it.
    """
    wanted = math.log(width / height)

    def error(size: tuple[int, int]) -> float:
        w, h = size
        return abs(math.log(w / h) - wanted) + abs(math.log(w * h / area)) / AREA_FOR_RATIO

    exact = math.sqrt(area * width / height), math.sqrt(area * height / width)
    rounded = tuple(max(1, round(side / SIZE_STEP)) for side in exact)
    found = [(rounded[0] * SIZE_STEP, rounded[1] * SIZE_STEP)]
    widest = math.ceil(exact[0] / SIZE_STEP * MOST_AREA)
    for steps in range(max(1, int(rounded[0] / MOST_AREA)), widest + 1):
        for high in {math.floor(steps * height / width), math.ceil(steps * height / width)}:
            size = steps * SIZE_STEP, high * SIZE_STEP
            if high and 1 / MOST_AREA <= size[0] * size[1] / area <= MOST_AREA:
                found.append(size)
    return min(found, key=error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings: a picture is taken or refused, by our own limit of size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _damaged(path: str | Path, what: str, error: Exception) -> str:
    return f"{what}: {path} is damaged or cut short: {_line(error)}."


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_REASON] or type(error).__name__


def _orientation(image: Image.Image) -> int | None:
    """Read the orientation from the header alone: for some PNGs Pillow would decode the picture."""
    if image.format == "PNG" and "exif" not in image.info:
        return None
    if image.format == "TIFF":  # Pillow gives its size as displayed
        return None
    return image.getexif().get(_ORIENTATION)


def _opened(file: Path, what: str) -> Image.Image:
    try:
        image = Image.open(file, formats=_formats_of(file))
    except UnidentifiedImageError:
        if _start_of(file)[:4] in _TIFF_STARTS:
            raise InputError(
                f"{what}: {file} is a TIFF that is damaged, or of a kind that is not read here, "
                "such as 64-bit numbers or several channels of floats."
            ) from None
        kinds = ", ".join((*FORMATS, *CONTAINED))
        raise InputError(f"{what}: {file} is no picture that is read here ({kinds}).") from None
    except Image.DecompressionBombError:
        raise InputError(_too_large(file, what)) from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise InputError(_too_large(file, what))
    if image.format == "JPEG2000" and "icc_profile" not in image.info:
        image.info["icc_profile"] = jp2.icc_profile(file)  # which Pillow leaves out
    return image


def _formats_of(file: Path) -> tuple[str, ...]:
    """What a file can be: AVIF and HEIC share a container, and reading one needs a library."""
    start = _start_of(file)
    if start[4:8] != b"ftyp":
        return FORMATS
    brand = start[8:12]
    if not brand.startswith(b"he") and (b"avif" in start or b"avis" in start):
        return ("AVIF",)
    _register_heif()
    return ("HEIF",)


def _start_of(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_START)


@cache
def _register_heif() -> None:
    import pillow_heif  # only where there is such a picture

    pillow_heif.register_heif_opener(**_HEIF_OPTIONS)


@lru_cache(maxsize=1024)  # a daemon sees more pictures than it has memory for
def _warn_once(text: str) -> None:
    """Warn of a picture once, although it is looked at for its edit and for its score."""
    from loguru import logger  # not as workers start: with it comes asyncio, and they seldom warn

    logger.warning(text)


def _too_large(file: Path, what: str) -> str:
    return f"{what}: {file} has more than {MAX_PIXELS // 10**6} megapixels."
