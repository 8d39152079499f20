"""Pictures of this program as inputs: each says itself how it was made.

A picture, a folder of pictures, or a folder's `metadata.jsonl`, of which a row stands for its
picture where that is missing.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import InputError
from core.intake.made import Made
from core.paths import as_text, user_path
from core.store.outputs import PICTURE_SUFFIXES, REPLACED
from core.store.provenance import read_provenance
from core.validation import shown

METADATA = "metadata.jsonl"
_FROM_ROW = (
    "prompt", "negative_prompt", "instruction", "seed", "width", "height", "num_inference_steps",
    "task_id",
)  # fmt: skip
_OF_OTHERS = {  # names of what programs write into pictures of how they were made
    "parameters": "AUTOMATIC1111's text",
    "workflow": "ComfyUI's graph",
    "prompt": "ComfyUI's graph",
    "invokeai_metadata": "InvokeAI's record",
    "sd-metadata": "InvokeAI's record",
    "Dream": "InvokeAI's record",
    "fooocus_scheme": "Fooocus' record",
}
_UNDECIDING = ("kind", "output_path")


@dataclass(frozen=True)
class MadePicture:
    """A picture that is to be drawn again.

    Attributes:
        file: where it lies, or lay.
        made: how it was made; None where it does not say so, and `problem` says why.
        sha256: of the file; None where only a row of a table is left of it.
        name: a path for the new picture that no other one has.
    """

    file: Path
    made: Made | None
    sha256: str | None
    name: str
    problem: str | None = None

    @property
    def kind(self) -> str:
        """The kind of its task."""
        return str(self.made.task.get("kind")) if self.made else ""

    @property
    def root(self) -> Path:
        """The output folder of the run that made it."""
        return _root_of(self.file, self.made.task if self.made else {})

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of its task, with LoRAs and sources where they lie now."""
        assert self.made is not None
        task = {
            key: value
            for key, value in self.made.task.items()
            if key not in _UNDECIDING and value is not None
        }
        root = self.root
        if isinstance(task.get("lora_path"), str):
            task["lora_path"] = _lora_at(task["lora_path"], root)
        else:
            task.pop("lora_strength", None)
        if isinstance(task.get("loras"), list):
            task["loras"] = [
                {**lora, "path": _lora_at(str(lora.get("path")), root)}
                for lora in task["loras"]
                if isinstance(lora, dict)
            ]
        sources = task.get("source_images")
        if isinstance(sources, list):
            task["source_images"] = [_picture_at(str(path), root) for path in sources]
        if isinstance(task.get("mask"), str):
            task["mask"] = _picture_at(task["mask"], root)
        return {**task, "output_path": self.name}


def read_pictures(paths: Sequence[str | Path]) -> list[MadePicture]:
    """How pictures were made, in the order in which they are named.

    Raises:
        InputError: a path is neither a picture, a folder of some, nor a table of them.
    """
    taken: dict[str, Path] = {}
    found: list[MadePicture] = []
    for file, row in _files(paths):
        if file in taken.values():
            continue
        made, problem = _made(file, row)
        name = _free_name(file, made, taken)
        taken[name.casefold()] = file
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
        found.append(MadePicture(file, made, sha256, name, problem))
    if not found:
        raise InputError(f"{', '.join(map(str, paths))}: lists no pictures.")
    return found


def _files(paths: Sequence[str | Path]) -> Iterator[tuple[Path, Mapping[str, Any] | None]]:
    for given in paths:
        path = user_path(given, "picture")
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if _is_picture(file, path))
            if not files:
                raise InputError(f"{path}: holds no pictures (PNG, WebP or JPEG).")
            yield from ((file, None) for file in files)
        elif path.suffix.lower() == ".jsonl":
            yield from _rows(path)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            if not path.is_file():
                raise InputError(f"{path}: cannot be read: No such file or directory.")
            yield path, None
        else:
            raise InputError(
                f"{path}: expected a picture (PNG, WebP or JPEG), a folder of pictures, or its "
                f"{METADATA}."
            )


def _is_picture(file: Path, below: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(below).parts)
    return not hidden and file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()


def _rows(table: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    try:
        lines = table.read_text("utf-8").split("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{table}: cannot be read: {reason}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name = PurePosixPath(row["file_name"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f"{table}: line {number}: expected an object with `file_name`, as {METADATA} of a "
                f"folder of pictures has (found {shown(line)})."
            ) from None
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{table}: line {number}: file_name leads out of its folder.")
        yield table.parent / name, row


def _made(file: Path, row: Mapping[str, Any] | None) -> tuple[Made | None, str | None]:
    try:
        return Made.said_by(read_provenance(file)), None
    except ValueError:
        pass
    if row is not None and not file.exists() and isinstance(row.get("prompt"), str):
        return _of_row(row), None
    other = _other_program(file)
    if other is not None:
        return None, (
            f"{as_text(file)}: was made by another program, as it has {other}; --from-png reads "
            'what this program writes. Give its prompt with --prompt "…", or in a file.'
        )
    return None, (
        f"{as_text(file)}: does not say how it was made: it is no picture of this program, or its "
        "text was removed (many sites and editors do that)."
    )


def _other_program(file: Path) -> str | None:
    """What another program has written into a picture of how it was made; None for nothing."""
    from PIL import Image  # who draws from texts needs nothing of it

    try:
        with Image.open(file) as image:
            keys = {*image.info}
    except Exception:  # whatever Pillow's readers trip over
        return None
    return next((what for key, what in _OF_OTHERS.items() if key in keys), None)


def _of_row(row: Mapping[str, Any]) -> Made:
    """What a table says of a picture that is gone: of LoRAs their names, of the model its name."""
    task = {name: row.get(name) for name in _FROM_ROW}
    if row.get("guidance_scale") is not None:
        task["guidance_scale"] = row["guidance_scale"]
    try:
        loras = json.loads(row.get("loras") or "[]")
        named = [{"path": x["lora"], "strength": x["strength"]} for x in loras]
        task["metadata"] = json.loads(row.get("metadata") or "{}")
    except (ValueError, KeyError, TypeError):
        named = []
    kind = "EditTask" if row.get("instruction") else "GenerateTask"
    task |= {"kind": kind, "output_path": row["file_name"], "loras": named or None}
    if isinstance(task["seed"], str) and task["seed"].isdecimal():
        task["seed"] = int(task["seed"])
    return Made(task, {"model": row.get("model")}, None, [], str(row.get("fingerprint")))


def _root_of(file: Path, task: Mapping[str, Any]) -> Path:
    """The output folder of the run that made a picture, by where its task wanted it."""
    own = PurePosixPath(str(task.get("output_path") or file.name))
    if not own.is_absolute() and file.parts[-len(own.parts) :] == own.parts:
        return file.absolute().parents[len(own.parts) - 1]
    return file.absolute().parent


def _picture_at(path: str, root: Path) -> str:
    """A picture that was edited: where its record says, which may be from the output folder on."""
    return os.path.normpath(os.path.join(root, path))


def _lora_at(path: str, root: Path) -> str:
    """The LoRA where it was, or its name alone: it is looked up like any other then."""
    try:
        for place in (Path(path) if Path(path).is_absolute() else None, root / path):
            if place is not None and place.is_file():
                return path if Path(path).is_absolute() else str(place)
    except (OSError, ValueError):
        pass
    return PurePosixPath(path.replace("\\", "/")).name


def _free_name(file: Path, made: Made | None, taken: Mapping[str, Path]) -> str:
    """The picture's old name: below its run's folder, or with more of its path where two meet."""
    root = _root_of(file, made.task if made else {})
    path = file.absolute().relative_to(root)
    inside = PurePosixPath(file.name if REPLACED in path.parts else path.as_posix())
    name, number = as_text(str(inside)), 2
    if name.casefold() in taken:
        name = as_text(f"{root.name.lstrip('.')}/{inside}")
    pure = PurePosixPath(name)
    while name.casefold() in taken:
        name = str(pure.with_name(f"{pure.stem}_{number}{pure.suffix}"))
        number += 1
    return name
