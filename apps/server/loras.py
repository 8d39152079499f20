"""LoRAs that callers may name: those of one folder, by their names and never by a path."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends
from loguru import logger
from typing_extensions import TypedDict

from apps.server.errors import ApiError
from apps.server.lora_models import LoraModels, not_offered
from apps.server.state import kept
from core.checkpoints.lora_files import LoraInspector
from core.checkpoints.lora_names import holds_lora, take_apart, unsupported_method
from core.checkpoints.safetensors_header import NotSafetensors, read_header
from core.errors import LoraError
from core.lora_paths import PEFT_FILE, lora_name
from core.validation import shown
from core.worker_spec import Role

LOOK_AGAIN = 2.0  # seconds for which a look at the folder is good
ENDINGS = (".safetensors", ".sft", ".st")
MOST_SHOWN = 100  # characters of what a file says of itself
_BASE = ("modelspec.architecture", "ss_base_model_version", "base_model", "ss_sd_model_name")


@dataclass(frozen=True)
class LoraEntry:
    """A file in the folder.

    Attributes:
        bytes: its size.
        modified: Unix time.
        rank: the largest of its layers; None where the file says nothing of it.
        layers: of the model that it changes.
        base: the model that it was made for, in its trainer's words, if it says so.
        problem: why it cannot be used; None for a LoRA.
        is_gone: workers hold it, or are to, and the file is not there any more.
    """

    name: str
    path: Path
    bytes: int
    modified: float
    rank: int | None = None
    layers: int = 0
    base: str | None = None
    problem: str | None = None
    is_gone: bool = False


class Loras:
    """The LoRAs of a folder.

    They are its safetensors files, by name without the ending, and PEFT's folders below it. A
    link that leads out of the folder leads nowhere.

    Args:
        models: says which ones the models here can take; asked at each look, as it may learn more.
    """

    def __init__(self, folder: Path, models: LoraModels | None = None) -> None:
        self._folder = folder
        self._models = models
        self._left_out: set[str] = set()  # LoRAs that the models here cannot take
        self._look = threading.Lock()
        self._files: dict[str, LoraEntry] = {}  # as they are, whatever the models are
        self._entries: dict[str, LoraEntry] = {}
        self._good_until = 0.0
        self._inspector = LoraInspector()

    def resolve(self, name: str, param: str, kind: Role | None = None) -> str:
        """The path of a LoRA.

        Args:
            kind: of the tasks that are to have it; None where that does not count.

        Raises:
            ApiError: 400: there is none of that name, or it cannot be used.
        """
        files, _ = self._looked_at()
        entry = files.get(name) or files.get(self.plain(name) if _is_name(name) else "")
        if entry is None:
            raise ApiError(
                400,
                f"{param}: there is no LoRA {shown(name)} here; GET /v1/loras lists them.",
                "lora_not_found",
                param,
            )
        problem = entry.problem
        if problem is None and kind is not None and self._models is not None:
            problem = self._models.misfit(kind, entry.path, entry.bytes, entry.modified)
        if problem is not None:
            raise ApiError(400, f"{param}: {name} {problem}", "invalid_lora", param)
        return str(entry.path)

    def plain(self, name: str) -> str:
        """The name of an entry, as which callers may give a file's name, too."""
        return name if name in self.entries() else lora_name(name)

    def named(self, path: str, name: str) -> bool:
        """Whether a LoRA that was once found at a path is one of the folder, and has a name."""
        return self._name_here(Path(path)) in (name, lora_name(name))

    def gone(self, paths: Sequence[str]) -> dict[str, LoraEntry]:
        """Those of the folder that were found at these paths and are not there any more."""
        found = {}
        for path in map(Path, paths):
            name = self._name_here(path)
            if name is not None and not os.path.lexists(path):
                problem = "is not in the folder any more."
                found[name] = LoraEntry(name, path, 0, 0.0, problem=problem, is_gone=True)
        return found

    def _name_here(self, path: Path) -> str | None:
        """What an entry of the folder is called; None for a file that is none."""
        folder = self._folder.absolute()
        if path.parent == folder:
            return lora_name(path.name)
        is_ours = path.name == PEFT_FILE and path.parent.parent == folder
        return path.parent.name if is_ours else None

    def sha256(self, entry: LoraEntry) -> str | None:
        """The content of a LoRA; None if it cannot be used."""
        try:
            return self._inspector.sha256(entry.path)
        except LoraError:
            return None

    def names(self) -> list[str]:
        """Those that can be used, in order."""
        return [name for name, entry in self.entries().items() if entry.problem is None]

    def entries(self) -> Mapping[str, LoraEntry]:
        """All files of the folder by name, in order."""
        return self._looked_at()[1]

    def _looked_at(self) -> tuple[Mapping[str, LoraEntry], Mapping[str, LoraEntry]]:
        """The same as they are by themselves, and with what the models here say of them."""
        with self._look:
            if time.monotonic() >= self._good_until:
                self._files = self._read()
                self._entries = self._compared(self._files)
                self._good_until = time.monotonic() + LOOK_AGAIN
            return self._files, self._entries

    def _compared(self, files: dict[str, LoraEntry]) -> dict[str, LoraEntry]:
        """The same, with a problem for those that no model here can take."""
        if self._models is None:
            return files
        why = self._models.left_out
        sound = (e for e in files.values() if e.problem is None)
        problems = {e.name: p for e in sound if (p := why(e.path, e.bytes, e.modified))}
        if problems.keys() - self._left_out:
            logger.info(not_offered([*problems], self._folder, self._models.model))
        self._left_out = {*problems}
        return {
            name: replace(entry, problem=problems.get(name, entry.problem))
            for name, entry in files.items()
        }

    def _read(self) -> dict[str, LoraEntry]:
        known = {(e.path, e.bytes, e.modified): e for e in self._files.values()}
        found: dict[str, LoraEntry] = {}
        try:
            root = self._folder.resolve()
            places = sorted(self._folder.iterdir())
        except OSError:
            return {}
        for place in places:
            inner = place / PEFT_FILE
            try:
                file = inner if place.is_dir() and inner.is_file() else place
                usable = file.suffix.lower() in ENDINGS and file.is_file()
                if not usable or not file.resolve().is_relative_to(root):
                    continue
                stat = file.stat()
            except OSError:
                continue
            name = place.name if file is inner else lora_name(place.name)
            path = file.absolute()
            entry = known.get((path, stat.st_size, stat.st_mtime))
            found.setdefault(name, entry or _inspected(name, path, stat.st_size, stat.st_mtime))
        return found


def _is_name(text: str) -> bool:
    return "/" not in text and "\\" not in text


def _inspected(name: str, path: Path, size: int, modified: float) -> LoraEntry:
    try:
        header, _ = read_header(path, size)
    except NotSafetensors as error:
        return LoraEntry(name, path, size, modified, problem=str(error))
    except OSError as error:
        return LoraEntry(name, path, size, modified, problem=f"cannot be read: {error.strerror}.")
    tensors = {key: value for key, value in header.items() if key != "__metadata__"}
    problem = None
    if method := unsupported_method(tensors):
        problem = f"is {method}, which is not supported; LoRA, DoRA and LoKr are."
    elif not holds_lora(tensors):
        problem = "holds no LoRA tensors; is it a whole model?"
    layers: set[str] = set()
    rank = 0
    for key, value in tensors.items():
        part = take_apart(key)
        if part.role is not None:
            layers.add(part.module)
        shape = value.get("shape") if isinstance(value, dict) else None
        if part.role == "down" and isinstance(shape, list) and shape and type(shape[0]) is int:
            rank = max(rank, shape[0])
    said = header.get("__metadata__")
    texts = (said.get(key) for key in _BASE) if isinstance(said, dict) else ()
    base = next((text[:MOST_SHOWN] for text in texts if isinstance(text, str) and text), None)
    return LoraEntry(name, path, size, modified, rank or None, len(layers), base, problem)


TheLoras = Annotated[Loras, Depends(kept("loras"))]


class FileView(TypedDict):
    """A file in the folder of LoRAs.

    Attributes:
        id: its name, which tasks may use.
        created: Unix time of its last change.
        rank: the largest of its layers; null where the file says nothing of it.
        layers: of the model that it changes.
        base_model: the model that it was made for, in its trainer's words, if it says so.
        problem: why it cannot be used.
    """

    id: str
    object: Literal["lora"]
    created: int
    bytes: int
    rank: int | None
    layers: int
    base_model: str | None
    usable: bool
    problem: str | None


def view(entry: LoraEntry) -> FileView:
    """A LoRA as callers see it."""
    return {
        "id": entry.name,
        "object": "lora",
        "created": int(entry.modified),
        "bytes": entry.bytes,
        "rank": entry.rank,
        "layers": entry.layers,
        "base_model": entry.base,
        "usable": entry.problem is None,
        "problem": entry.problem,
    }
