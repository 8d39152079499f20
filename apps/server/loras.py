"""LoRAs that callers may name: those of one folder, by their names and never by a path."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from typing_extensions import TypedDict

from apps.server.document import errors
from apps.server.errors import ApiError, not_found
from apps.server.paging import Listing
from apps.server.state import kept
from core.checkpoints.lora_files import PEFT_FILE, lora_name
from core.checkpoints.lora_names import holds_lora, take_apart, unsupported_method
from core.checkpoints.safetensors_header import NotSafetensors, read_header
from core.validation import shown

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
    """

    name: str
    path: Path
    bytes: int
    modified: float
    rank: int | None = None
    layers: int = 0
    base: str | None = None
    problem: str | None = None


class Loras:
    """The LoRAs of a folder.

    They are its safetensors files, by name without the ending, and PEFT's folders below it. A
    link that leads out of the folder leads nowhere.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._look = threading.Lock()
        self._entries: dict[str, LoraEntry] = {}
        self._good_until = 0.0

    def resolve(self, name: str, param: str) -> str:
        """The path of a LoRA.

        Raises:
            ApiError: 400: there is none of that name, or it cannot be used.
        """
        entries = self.entries()
        entry = entries.get(name) or entries.get(lora_name(name) if _is_name(name) else "")
        if entry is None:
            raise ApiError(
                400,
                f"{param}: there is no LoRA {shown(name)} here; GET /v1/loras lists them.",
                "lora_not_found",
                param,
            )
        if entry.problem is not None:
            raise ApiError(400, f"{param}: {name} {entry.problem}", "invalid_lora", param)
        return str(entry.path)

    def names(self) -> list[str]:
        """Those that can be used, in order."""
        return [name for name, entry in self.entries().items() if entry.problem is None]

    def entries(self) -> Mapping[str, LoraEntry]:
        """All files of the folder by name, in order."""
        with self._look:
            if time.monotonic() >= self._good_until:
                self._entries = self._read()
                self._good_until = time.monotonic() + LOOK_AGAIN
            return self._entries

    def _read(self) -> dict[str, LoraEntry]:
        known = {(e.path, e.bytes, e.modified): e for e in self._entries.values()}
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


def name_of(path: str) -> str:
    """The name of the LoRA at a path that `Loras.resolve` gave."""
    file = Path(path)
    return file.parent.name if file.name == PEFT_FILE else lora_name(file.name)


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
router = APIRouter(prefix="/v1/loras", tags=["loras"])


class LoraView(TypedDict):
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


@router.get("")
def list_loras(loras: TheLoras) -> Listing[LoraView]:
    """All LoRAs of the folder, with those that cannot be used and why."""
    return {"object": "list", "data": [view(entry) for entry in loras.entries().values()]}


@router.get("/{name}", responses=errors(404))
def read_lora(name: str, loras: TheLoras) -> LoraView:
    """One file of the folder."""
    entry = loras.entries().get(name)
    if entry is None:
        raise not_found(f"No LoRA is called {shown(name)}.", "lora_not_found")
    return view(entry)


def view(entry: LoraEntry) -> LoraView:
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
