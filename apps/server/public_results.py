"""Results as callers get them: what a picture says of its making names no path of this machine."""

import os
from pathlib import Path

from core.checkpoints.lora_files import name_of
from core.store.relabel import with_other_paths


def public_result(file: Path) -> bytes:
    """The content of a result; LoRAs are called as `GET /v1/loras` lists them.

    Raises:
        OSError: the file is gone, or cannot be read.
    """
    return with_other_paths(file.read_bytes(), _public)


def other_than_the_file(file: Path) -> bytes | None:
    """The same; None where that is the file as it lies there.

    Raises:
        OSError: the file is gone, or cannot be read.
    """
    content = file.read_bytes()
    told = with_other_paths(content, _public)
    return None if told is content else told


def _public(path: str) -> str:
    return name_of(path) if os.path.isabs(path) else path
