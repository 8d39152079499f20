"""What requests refer to where there is no daemon: pictures and LoRAs of this machine."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from apps.openai_images.errors import ApiError, bad_value
from core.errors import InputError
from core.lora_paths import PEFT_FILE
from core.paths import readings
from core.pictures.source_images import inspect_image
from core.store.outputs import make_folder, write_atomically
from core.validation import shown, shown_path

FOLDER = ".sources"  # hidden: no picture in it is a result
LORA_ENDINGS = ("", ".safetensors", ".sft", ".st", f"/{PEFT_FILE}")
MOST_NAME = 4000  # characters of what is no picture itself


def find_picture(reference: str, base: Path, kept_in: Path, param: str) -> str:
    """The file of a picture.

    Args:
        reference: a data URL, base64, or a path, which may be a file URL.
        base: where relative paths begin.
        kept_in: the folder of results, below which pictures of data URLs are kept.
        param: the field to name in errors.

    Raises:
        ApiError: 400: none of these, or not what it says it is.
        StorageError: `kept_in` cannot be written.
    """
    if reference.startswith("data:"):
        head, comma, content = reference.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            message = f"{param}: a data URL must be in base64."
            raise bad_value(param, message, "invalid_image_url")
        return _kept(content, kept_in, param)
    if reference.lower().startswith(("http://", "https://")):
        message = f"{param}: no pictures are fetched; give a path or a data URL."
        raise bad_value(param, message, "invalid_image_url")
    if len(reference) > MOST_NAME:
        return _kept(reference, kept_in, param)
    if reference.startswith("file://"):
        reference = unquote(urlsplit(reference).path)
    try:
        for place in readings(reference, param):
            if (base / place).is_file():
                return str((base / place).absolute())
    except (InputError, OSError, ValueError):
        pass
    message = f"{param}: {shown(reference)} is no file here; give a path or a data URL."
    raise bad_value(param, message, "image_not_found")


def _kept(text: str, folder: Path, param: str) -> str:
    try:
        content = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        message = f"{param}: expected a path or a picture in base64."
        raise bad_value(param, message, "invalid_image_url") from None
    file = folder / FOLDER / hashlib.sha256(content).hexdigest()
    if not file.exists():
        make_folder(file.parent)
        write_atomically(file, content)
    try:
        inspect_image(file, param)
    except InputError as error:
        message = str(error).replace(shown_path(str(file)), "the picture")
        raise bad_value(param, message.replace(str(file), "the picture"), "invalid_image") from None
    return str(file.absolute())


def find_lora_by_name(name: str, folders: Sequence[Path], param: str) -> str:
    """The file of a LoRA, by its path or its name below `folders`, with or without its ending.

    Raises:
        ApiError: 400: there is none.
    """
    try:
        for folder in folders:
            for ending in LORA_ENDINGS:
                if (file := folder / f"{name}{ending}").is_file():
                    return str(file.absolute())
    except (OSError, ValueError):
        pass
    where = ", ".join(str(folder) for folder in folders)
    message = f"{param}: there is no LoRA {shown(name)} (looked in {where})."
    raise ApiError(400, message, "lora_not_found", param)
