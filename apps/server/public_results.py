"""Results and errors as callers get them, without a path of this machine."""

import os
from collections.abc import Mapping
from pathlib import Path

from apps.server.service import Service
from core.lora_paths import name_of
from core.paths import user_path
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


def hidden_folders(service: Service) -> Mapping[str, str]:
    """Folders of this machine as callers read of them in errors."""
    loras = user_path(service.generator.settings.lora_dir, "lora_dir").absolute()
    return {f"{service.folder}/": "", f"{loras}/": ""}


def _public(path: str) -> str:
    return name_of(path) if os.path.isabs(path) else path
