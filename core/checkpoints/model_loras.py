"""LoRAs that belong to the model: every picture of a run is drawn with them.

They are found and checked here, as those of tasks are, and put on in the worker when it has loaded
the model (`workers.model_loras`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.checkpoints.hub_files import fetch_file, look_at_file
from core.checkpoints.lora_files import LoraInspector, find_lora
from core.errors import InputError, LoraError
from core.lora_paths import file_or_folder
from core.model_lora import ModelLora, lora_identity
from core.model_settings import ModelLoraSettings


def find_model_loras(
    wanted: Sequence[ModelLoraSettings],
    folders: Sequence[Path],
    inspector: LoraInspector,
    setting: str = "model_loras",
) -> tuple[ModelLora, ...]:
    """The files that are meant, checked; those at strength 0 are left out.

    Args:
        folders: where relative paths are looked up, in this order.
        setting: its name, for messages.

    Raises:
        InputError: a file is not there, no LoRA, or the hub refuses it.
    """
    found = []
    for place, lora in enumerate(wanted):
        if lora.strength == 0:
            continue
        where = f"{setting}.{place}"
        try:
            if lora.file is None:
                file = find_lora(lora.path, folders)
                sha256 = inspector.sha256(file)
                name = file_or_folder(str(file))
            else:
                file, sha256 = _of_hub(lora.path, lora.file, lora.revision, where, inspector)
                name = file_or_folder(f"{lora.path}/{lora.file}")
        except LoraError as error:
            hint = _hint(lora, where)
            raise InputError(f"{where}: {str(error).removeprefix('lora_path: ')}{hint}") from None
        found.append(ModelLora(str(file), name, sha256, lora.strength))
    return tuple(found)


def _of_hub(
    repository: str, file: str, revision: str | None, where: str, inspector: LoraInspector
) -> tuple[Path, str]:
    """The file in the hub's cache, or where it would be, and its content hash."""
    if not inspector.may_download:
        place, sha256 = look_at_file(repository, file, revision, where)
        return place, sha256 or inspector.sha256(place)
    place = fetch_file(repository, file, revision, where)
    return place, inspector.sha256(place)


def _hint(lora: ModelLoraSettings, where: str) -> str:
    if lora.file is None and lora.is_hub_id:
        return f" For a file on the Hugging Face hub give {where}.file, too."
    return ""


def identities_in(records: Iterable[Any]) -> list[str]:
    """The identities of LoRAs as a picture records them, which may be anything."""
    found = []
    for record in records:
        if isinstance(record, Mapping):
            sha256, strength = record.get("sha256"), record.get("strength")
            if isinstance(sha256, str) and isinstance(strength, int | float):
                found.append(lora_identity(sha256, strength))
    return found
