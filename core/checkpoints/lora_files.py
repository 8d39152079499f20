"""LoRA files as main sees them: where they lie, whether they are LoRAs, and their content hash."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from core.checkpoints.lora_names import holds_lora, is_added, unsupported_method
from core.checkpoints.safetensors_header import NotSafetensors, read_header
from core.errors import LoraError
from core.lora_paths import PEFT_FILE
from core.paths import readings
from core.validation import shown_path

MAX_BYTES = 32 * 1024**3  # more than any LoRA, and read in a bearable time
CHUNK = 1024**2
PEFT_SETTINGS = "adapter_config.json"
MAX_SETTINGS_BYTES = 10_000_000  # PEFT writes a few kB


def find_lora(path: str, folders: Sequence[Path]) -> Path:
    """The file that a task means by `path`: absolute, or the first found below `folders`.

    A folder means the file that PEFT writes into it.

    Raises:
        LoraError: nowhere to be found; names every place that was tried.
        InputError: no file can have such a path.
    """
    places = lora_places(path, folders)
    for place in places:
        try:
            if place.is_file():
                return place.absolute()  # a link keeps the name that the user knows it by
        except (OSError, ValueError):  # a name too long for the file system
            continue
    if folder := next((place for place in places if os.path.isdir(place)), None):
        raise LoraError(
            f"lora_path: {shown_path(str(folder))} is a folder without {PEFT_FILE}, as PEFT writes "
            "it: name the file in it."
        )
    tried = ", ".join(str(folder) for folder in folders)
    relative = not all(name.is_absolute() for name in _readings(path))
    where = f" (looked in {tried})" if relative else ""
    raise LoraError(f"lora_path: {shown_path(str(path))} is not a file{where}.")


def lora_places(path: str, folders: Sequence[Path]) -> list[Path]:
    """Where a LoRA may lie: at an absolute path, or below one of `folders`; there, or inside.

    Raises:
        InputError: no file can have such a path.
    """
    wanted = _readings(path)
    relative = [name for name in wanted if not name.is_absolute()]
    places = [name for name in wanted if name.is_absolute()]
    places += [folder / name for name in relative for folder in folders]
    return [file for place in places for file in (place, place / PEFT_FILE)]


def _readings(path: str) -> list[Path]:
    return readings(path.replace("\\", "/"), "lora_path")


def settings_beside(path: Path) -> bytes:
    """PEFT's settings that lie beside a file of weights; alpha is written there and nowhere else.

    Empty where there are none.
    """
    settings = path.with_name(PEFT_SETTINGS)
    if path.name != PEFT_FILE or not settings.is_file():
        return b""
    with settings.open("rb") as stream:
        content = stream.read(MAX_SETTINGS_BYTES + 1)
    if len(content) > MAX_SETTINGS_BYTES:
        raise LoraError(f"lora_path: {settings} is larger than PEFT's settings can be.")
    return content


def content_hash(path: Path) -> str:
    """SHA-256 of a LoRA file, followed by PEFT's settings where these are beside it."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(settings_beside(path))
    return digest.hexdigest()


class LoraInspector:
    """Checks each LoRA file once and remembers its hash until the file changes.

    Args:
        may_download: models' LoRAs that lie on the hub may be fetched to be looked at.
    """

    def __init__(self, may_download: bool = True) -> None:
        self.may_download = may_download
        self._known: dict[tuple[str, int, int, bytes], str | LoraError] = {}

    def sha256(self, path: Path) -> str:
        """Content hash of a valid LoRA file.

        Raises:
            LoraError: unreadable, not safetensors by content, or without LoRA tensors.
        """
        try:
            stat = path.stat()
            key = (str(path), stat.st_size, stat.st_mtime_ns, settings_beside(path))
            if stat.st_size > MAX_BYTES:
                raise LoraError(f"lora_path: {path} is larger than {MAX_BYTES // 1024**3} GiB.")
            if key not in self._known:
                self._known[key] = _inspect(path, stat.st_size)
        except OSError as error:
            raise LoraError(f"lora_path: {path} cannot be read: {error.strerror}.") from None
        known = self._known[key]
        if isinstance(known, LoraError):
            raise known
        return known


def _inspect(path: Path, size: int) -> str | LoraError:
    try:
        header, data_start = read_header(path, size)
        _check_tensors(path, header, data_start, size)
    except NotSafetensors as error:
        return LoraError(f"lora_path: {path} {error}")
    except LoraError as error:
        return error
    return content_hash(path)


def _check_tensors(path: Path, header: dict[str, object], data_start: int, size: int) -> None:
    names = [name for name in header if name != "__metadata__"]
    if not unsupported_method(names) and not holds_lora(names):
        raise LoraError(f"lora_path: {path} holds no LoRA tensors; is it a whole model?")
    ends = [0]
    zeros = set()
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not _valid_offsets(offsets, size - data_start):
            raise LoraError(f"lora_path: {path} is cut short or damaged at tensor {name[:80]!r}.")
        ends.append(offsets[1])
        if is_added(name) and _only_zeros(path, data_start + offsets[0], data_start + offsets[1]):
            zeros.add(name)
    method = unsupported_method(name for name in names if name not in zeros)
    if method:
        raise LoraError(f"lora_path: {path}: {method} is not supported; LoRA, DoRA and LoKr are.")
    if max(ends) != size - data_start:  # the format has no holes; what is more is something else
        raise LoraError(f"lora_path: {path} holds more than its tensors; is it damaged?")


def _only_zeros(path: Path, start: int, end: int) -> bool:
    with path.open("rb") as stream:
        stream.seek(start)
        while start < end:
            chunk = stream.read(min(CHUNK, end - start))
            if not chunk or chunk.strip(b"\0"):
                return False
            start += len(chunk)
    return True


def _valid_offsets(offsets: object, available: int) -> TypeGuard[list[int]]:
    return (
        isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(o) is int for o in offsets)
        and 0 <= offsets[0] <= offsets[1] <= available
    )
