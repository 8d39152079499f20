"""Pictures as they are sent: from the PNG that a worker wrote to the format that was asked for.

A PNG goes out as it lies there. Webp and jpeg keep what it says of its making (as EXIF, in the
places where A1111 looks) and its colour profile.
"""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

from apps.openai_images.parameters import Format
from core.store.provenance import (
    EXIF_START,
    FULL_COLOUR_FROM,
    MOST_JPEG_EXIF,
    PARAMETERS_KEY,
    TASK_KEY,
    exif_of,
)

Read = Callable[[Path], bytes]
MEDIA_TYPES: dict[Format, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


def encoded(file: Path, format: Format, compression: int, read: Read = Path.read_bytes) -> bytes:
    """A picture in a format.

    Args:
        compression: percent of the quality that webp and jpeg keep; webp at 100 is lossless.
        read: gives the PNG that is in the file.

    Raises:
        OSError: the file is gone, or damaged.
    """
    if format == "png":
        return read(file)
    with Image.open(BytesIO(read(file)), formats=["PNG"]) as image:
        image.load()
        texts = {key: str(image.info.get(key, "")) for key in (TASK_KEY, PARAMETERS_KEY)}
        profile = image.info.get("icc_profile")
        stream = BytesIO()
        if format == "webp":
            quality = {"lossless": True, "quality": 20, "method": 1}  # effort, as a worker's
            if compression < 100:
                quality = {"quality": compression, "method": 4}
            exif = exif_of(texts[TASK_KEY], texts[PARAMETERS_KEY])
            image.save(stream, "WEBP", exif=exif, icc_profile=profile, **quality)
        else:
            image.convert("RGB").save(
                stream,
                "JPEG",
                quality=max(1, compression),
                # No `optimize`: Pillow's room for it is too small where a picture is much noise.
                subsampling=0 if compression >= FULL_COLOUR_FROM else 2,
                exif=_exif_of_jpeg(texts[TASK_KEY], texts[PARAMETERS_KEY]),
                icc_profile=profile,
            )
    return stream.getvalue()


def shown_as(preview: bytes, format: Format, compression: int) -> bytes:
    """A preview, which is a small JPEG, in another format."""
    if format == "jpeg":
        return preview
    stream = BytesIO()
    with Image.open(BytesIO(preview), formats=["JPEG"]) as image:
        if format == "png":
            image.save(stream, "PNG")
        else:
            image.save(stream, "WEBP", quality=min(compression, FULL_COLOUR_FROM), method=1)
    return stream.getvalue()


def _exif_of_jpeg(task: str, parameters: str) -> bytes:
    """What fits: the whole, the text for viewers alone, or nothing."""
    for exif in (exif_of(task, parameters), exif_of("", parameters)):
        if len(exif) <= MOST_JPEG_EXIF:
            return EXIF_START + exif
    return b""


def size_of(file: Path) -> str:
    """Width and height of a picture in pixels, as 1024x768."""
    with Image.open(file, formats=["PNG"]) as image:
        return f"{image.width}x{image.height}"
