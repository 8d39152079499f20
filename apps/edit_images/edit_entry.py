"""One entry of a list of edits: its pictures, its instruction and its settings."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from apps.prompts.kept_columns import kept_columns
from apps.prompts.run_names import file_name
from core.errors import InputError
from core.intake import edit_fields, spellings
from core.intake.setting_values import is_empty, is_set
from core.names import cleaned, cut, distinct
from core.paths import as_text
from core.validation import MAX_SHOWN, shown

MAX_INSTRUCTION = 40  # characters of an instruction in the name of its picture
_BETWEEN = re.compile(r"\s*[;|]\s*")  # several pictures in one cell


@dataclass(frozen=True)
class Edit:
    """An edit as it was asked for.

    Attributes:
        fields: of an EditTask, with absolute paths of pictures.
        picture: what the first source is called, without its ending; slashes are of folders.
        name: what the new picture is called, in the same way.
        where: file and place; empty for what the command line names.
    """

    fields: Mapping[str, Any]
    picture: str
    name: str
    where: str = ""

    @property
    def instruction(self) -> Any:
        return self.fields.get("instruction")

    @property
    def sources(self) -> Sequence[str]:
        found: Sequence[str] = self.fields["source_images"]
        return found

    def changed(self, suffix: str, fields: Mapping[str, Any]) -> "Edit":
        """The edit with further fields, and with an end to all that it is called."""
        own = dict(self.fields)
        if suffix:
            for key in ("task_id", "output_path"):
                if isinstance(own.get(key), str):
                    path = PurePosixPath(own[key])
                    is_path = key == "output_path"
                    own[key] = (
                        str(path.with_name(f"{path.stem}{suffix}{path.suffix}"))
                        if is_path and path.name
                        else f"{own[key]}{suffix}"
                    )
        return Edit({**own, **fields}, self.picture, f"{self.name}{suffix}", self.where)

    def placed(self, error: str) -> str:
        """An error about it, with its place."""
        return f"{self.where}: {error}" if self.where else error


def read_entry(
    entry: Any, around: Mapping[str, Any], base: Path, where: str, passed_over: Counter[str]
) -> Edit:
    """Read an entry of a list.

    Args:
        around: fields that hold for the whole file, where an entry says nothing else.
        base: where relative paths begin.
        passed_over: counts keys that mean nothing here.

    Raises:
        InputError: it names no picture, or says one thing in two ways.
    """
    if isinstance(entry, str):
        entry = {"source_images": entry}
    if not isinstance(entry, Mapping):
        raise InputError(f"expected an object or a picture, found {shown(entry)}.")
    known, others = _apart(entry, passed_over)
    shared, _ = _apart(around, Counter())
    own = edit_fields.read_edit(known)
    fields = {**{k: v for k, v in edit_fields.read_edit(shared).items() if k not in own}, **own}
    if not is_set(fields.get("source_images")) or is_empty(fields["source_images"]):
        raise InputError("names no picture.")
    for name in ("source_images", "mask"):
        if is_set(fields.get(name)):
            fields[name] = _paths(fields[name], name, base)
    if isinstance(fields.get("mask"), list):
        fields["mask"] = _only(fields["mask"])
    metadata = fields.pop("metadata", None)
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InputError(f"metadata: expected an object, found {shown(metadata)}.")
    kept, left_out = kept_columns(others)
    passed_over.update(map(_short, left_out))
    if kept or metadata:
        fields["metadata"] = {**kept, **(metadata or {})}
    picture = as_text(Path(fields["source_images"][0]).stem)
    return Edit(fields, picture, _name_of(fields, picture), where)


def _apart(
    entry: Mapping[str, Any], passed_over: Counter[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What means something here, and what else there is.

    Raises:
        InputError: a key looks misspelt.
    """
    known: dict[str, Any] = {}
    others: dict[str, Any] = {}
    texts = edit_fields.other_texts(entry)
    for key, value in entry.items():
        if not is_set(value) or is_empty(value):
            continue
        if key in texts:
            others[key] = value
        elif edit_fields.edit_field(key) is not None or spellings.holds_strengths(key):
            known[key] = value
        elif spellings.is_foreign(key):
            passed_over[_short(key)] += 1
        else:
            near = edit_fields.meant(key)
            said = {edit_fields.edit_field(k) for k in entry}
            if near is not None and edit_fields.edit_field(near) not in said:
                raise InputError(f"{key}: unknown key; did you mean {near!r}?")
            others[key] = value
    return known, others


def _paths(value: Any, name: str, base: Path) -> list[str]:
    """Files as a list of absolute paths; a text may name several."""
    if not isinstance(value, str | list):
        raise InputError(f"{name}: expected a file, or a list of files, found {shown(value)}.")
    found = []
    for text in value if isinstance(value, list) else [value]:
        for part in _several(text, base) if isinstance(text, str) else [text]:
            if not isinstance(part, str) or not part.strip():
                raise InputError(f"{name}: expected a file, found {shown(part)}.")
            place = os.path.expanduser(part.strip())
            found.append(os.path.normpath(os.path.join(base, place)))
    return found


def _several(text: str, base: Path) -> list[Any]:
    """The files that one cell names: one, several with `;` between them, or a JSON list."""
    if text.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            found = json.loads(text)
            if isinstance(found, list):
                return found
    with suppress(OSError, ValueError):
        if (base / text).exists():
            return [text]
    return [part for part in _BETWEEN.split(text.strip()) if part] or [text]


def _only(paths: list[str]) -> str:
    if len(paths) != 1:
        raise InputError(f"mask: expected one file, found {len(paths)}.")
    return paths[0]


def _short(key: str) -> str:
    return key if len(key) <= MAX_SHOWN else f"{key[: MAX_SHOWN - 1]}…"


def slug(instruction: str) -> str:
    """An instruction as part of a file's name."""
    text = cleaned(instruction, "-").strip("_")
    name = cut(text, MAX_INSTRUCTION).strip("_")
    return name if name and name == text else distinct(instruction, name or "edit")


def _name_of(fields: Mapping[str, Any], picture: str) -> str:
    """What the new picture is called: by its id, else by its source and its instruction."""
    if name := file_name(fields.get("task_id")):
        return name
    instruction = fields.get("instruction")
    return f"{picture}_{slug(instruction)}" if isinstance(instruction, str) else picture
