"""Picture files that say how they were made: A1111's `parameters` text and our own JSON.

`parameters` (`core.store.infotext`) is what most viewers and ComfyUI nodes read. Nothing is ever
written under `prompt` or `workflow`, where ComfyUI expects its own JSON. A PNG has both as text
chunks. A WebP or JPEG has them in EXIF: `parameters` as the user comment, where A1111 has it, too,
and the JSON as the image description.
"""

import json
import os
import struct
import warnings
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo
from PIL.TiffTags import ASCII, LONG, UNDEFINED

from core.messages import Lease
from core.store.infotext import parameters_text
from core.store.outputs import JPEG_QUALITY, JPEG_SUFFIXES, WEBP
from core.tasks import EditTask, GenerateTask, Task, task_to_json, with_paths

EXIF_START = b"Exif\0\0"  # which only a JPEG's segment has
MOST_JPEG_EXIF = 65_000  # bytes: a JPEG's segment has two bytes for its length
JPEG_END = b"\xff\xd9"
FULL_COLOUR_FROM = 90  # percent: below it a JPEG's colours have half the resolution, as usual
PARAMETERS_KEY = "parameters"
TASK_KEY = "generate_task"
TIFF_HEADER, IFD, ENTRY = 8, 6, 12  # bytes: of EXIF's header, an empty directory, an entry of one


def encode_picture(image: Image.Image, lease: Lease, used: Mapping[str, Any]) -> bytes:
    """The file of a picture in the format that its task's output path names.

    It is lossless, unless the task has a `picture_quality`.

    Args:
        used: what the model really took: model, model_hash, sampler, num_inference_steps,
            guidance_scale, width, height; missing where unknown.
    """
    assert isinstance(lease.task, GenerateTask | EditTask)
    parameters = parameters_text(lease.task, used, lease.lora_sha256, lease.loras_sha256)
    own = json.dumps(record(lease, used))  # in ASCII, which every kind of text field can hold
    stream, quality = BytesIO(), lease.task.picture_quality
    name = (lease.task.output_path or "").lower()
    if name.endswith(WEBP):
        exif = exif_of(own, parameters)
        # For lossless files "quality" is effort: more of it takes four times as long for nothing.
        how = {"lossless": True, "method": 1, "quality": 20}
        if quality is not None:
            how = {"method": 4, "quality": quality}
        image.save(stream, "WEBP", exif=exif, **how)
    elif name.endswith(JPEG_SUFFIXES):
        quality = JPEG_QUALITY if quality is None else quality
        # Without `optimize`: Pillow's buffer for that is too small for noise, which would fail.
        image.convert("RGB").save(
            stream,
            "JPEG",
            quality=quality,
            subsampling=0 if quality >= FULL_COLOUR_FROM else 2,
            exif=exif_of_jpeg(own, parameters),
        )
    else:
        info = PngInfo()
        info.add_text(PARAMETERS_KEY, parameters)
        info.add_text(TASK_KEY, own)
        # Run lengths alone: a third of the default's time, and no larger (benchmarks/encode.py).
        image.save(stream, "PNG", pnginfo=info, compress_type=zlib.Z_RLE)
    return stream.getvalue()


def record(lease: Lease, used: Mapping[str, Any]) -> dict[str, Any]:
    """What a result says of its own making."""
    stack = {"loras_sha256": list(lease.loras_sha256)} if lease.loras_sha256 else {}
    return {
        "task": task_to_json(_as_told(lease)),
        "used": dict(used),
        "lora_sha256": lease.lora_sha256,
        **stack,
        "files": list(lease.files.values()),
        "fingerprint": lease.fingerprint,
    }


def _as_told(lease: Lease) -> Task:
    """The task with paths below the output folder relative to it: results go to other people."""
    task = lease.task
    own = PurePosixPath(task.output_path or "/")
    folders = Path(lease.partial_path).parents
    if own.is_absolute() or len(own.parts) > len(folders):
        return task
    prefix = os.path.join(folders[len(own.parts) - 1], "")
    return with_paths(task, lambda path: path.removeprefix(prefix))


def exif_of(description: str, comment: str) -> bytes:
    """EXIF of an image description and a user comment, in the types that its standard gives.

    Pillow would write the comment as BYTE, which piexif, and so A1111, cannot read.
    """
    ascii_text = description.encode("ascii") + b"\0"
    padding = b"\0" * (len(ascii_text) % 2)  # values begin at even places
    undefined = b"UNICODE\0" + comment.encode("utf-16-be")
    details, values = TIFF_HEADER + IFD + 2 * ENTRY, TIFF_HEADER + 2 * IFD + 3 * ENTRY
    place = values + len(ascii_text) + len(padding)
    return b"".join(
        (
            struct.pack(">2sHI", b"MM", 42, TIFF_HEADER),
            struct.pack(">H", 2),
            struct.pack(">HHII", Base.ImageDescription, ASCII, len(ascii_text), values),
            struct.pack(">HHII", Base.ExifOffset, LONG, 1, details),
            struct.pack(">IH", 0, 1),  # no other directory follows; the comment's has one entry
            struct.pack(">HHII", Base.UserComment, UNDEFINED, len(undefined), place),
            struct.pack(">I", 0),
            ascii_text + padding,
            undefined,
        )
    )


def exif_of_jpeg(description: str, comment: str) -> bytes:
    """The same for a JPEG, whose segment holds less: a comment that does not fit is left out."""
    for text in (comment, ""):
        if len(exif := exif_of(description, text)) <= MOST_JPEG_EXIF:
            return EXIF_START + exif
    raise ValueError(f"{len(description)} characters of JSON do not fit into a JPEG's EXIF")


def read_provenance(file: Path) -> dict[str, Any]:
    """What `record` wrote into a picture or a verdict.

    Raises:
        ValueError: not a whole picture or JSON file of this project.
    """
    try:
        if file.suffix.lower() == ".json":
            found = json.loads(file.read_text("utf-8"))
        else:
            found = json.loads(_text_in(file))
        if "fingerprint" not in found:
            raise KeyError("fingerprint")
        return dict(found)
    except Exception as error:  # whatever Pillow's readers trip over
        raise ValueError(f"{file} is not a whole result of this project") from error


def _text_in(file: Path) -> str:
    """Our JSON in a picture that is whole: a torn file is none."""
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(file, formats=["PNG", "WEBP", "JPEG"]) as image,
    ):
        if image.format == "JPEG":
            with file.open("rb") as stream:
                stream.seek(-len(JPEG_END), os.SEEK_END)
                if stream.read() != JPEG_END:
                    raise ValueError("its end is missing")
        if image.format != "PNG":
            image.load()  # these have no checksums: what is not torn counts as whole
            return str(image.getexif()[Base.ImageDescription])
        text = str(image.info[TASK_KEY])
        image.verify()
        return text
