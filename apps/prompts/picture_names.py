"""Names of pictures by a pattern of fields, such as `{lora}/{prompt}_{seed}`.

A field in braces stands for its value, cleaned for a file name; `{index:04}` fills up with zeros.
Slashes make folders below the output folder.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from string import Formatter
from typing import Any

from apps.prompts.bad_entry import BadEntry
from apps.prompts.variants import like
from apps.prompts.words import Words
from core.errors import InputError
from core.intake.task_kinds import Inputs, TaskInput, at_its_place, rereadable
from core.lora_paths import name_of
from core.names import bounded, cleaned, cut
from core.seeds import RANDOM, seed_of_task
from core.store.outputs import PICTURE_SUFFIXES
from core.validation import shown

_LONGEST = 60  # characters of one value
_NONE = "none"
_SPEC = re.compile(r"0?[1-9]?[0-9]?")


class PictureNames:
    """Inputs whose pictures are called by a pattern.

    Args:
        suffix: of names that end in none.
        first_seed: of the first input without one.

    Raises:
        InputError: the pattern is none, or has a field that tasks have not.
    """

    def __init__(
        self, inputs: Inputs, pattern: str, words: Words, suffix: str, first_seed: int
    ) -> None:
        self._inputs = inputs
        self._words = words
        self._suffix = "" if pattern.lower().endswith(PICTURE_SUFFIXES) else suffix
        self._first_seed = first_seed
        self._parts = _parts(pattern, words)

    @property
    def rereadable(self) -> bool:
        """As the inputs are that they are made of."""
        return rereadable(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def __iter__(self) -> Iterator[TaskInput]:
        for index, given in enumerate(self._inputs):
            if not isinstance(given, Mapping):
                yield given
                continue
            try:
                yield like(given, {**given, "output_path": self._name(index, given)})
            except InputError as error:
                yield BadEntry(at_its_place(given, str(error)), str(given.get("task_id")))

    def _name(self, index: int, task: Mapping[str, Any]) -> str:
        text = "".join(
            literal + (self._value(field, spec, index, task) if field else "")
            for literal, field, spec in self._parts
        )
        folders, _, name = text.rpartition("/")
        return f"{folders}/{bounded(name)}{self._suffix}".removeprefix("/")

    def _value(self, field: str, spec: str, index: int, task: Mapping[str, Any]) -> str:
        value = self._found(field, index, task)
        if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
            return format(int(value), f"{spec}d" if spec else "d")
        return cut(cleaned(str(value), "-."), _LONGEST).strip("_.") or _NONE

    def _found(self, field: str, index: int, task: Mapping[str, Any]) -> Any:
        if field == "index":
            return index
        if field == "id":
            return task.get("task_id")
        meant = self._words.field_of(field)
        if meant in ("lora", "lora_path"):
            return _loras(task)
        if meant == "seed":
            return self._seed(index, task)
        value = task.get(meant or field)
        if meant == "source_images" and value is not None:
            return PurePath(str(value if isinstance(value, str) else value[0])).stem
        if value is None:
            metadata = task.get("metadata")
            value = metadata.get(field) if isinstance(metadata, Mapping) else None
        return _NONE if value is None else value

    def _seed(self, index: int, task: Mapping[str, Any]) -> Any:
        seed = task.get("seed")
        if seed is None and self._first_seed != RANDOM:
            return seed_of_task(self._first_seed, index)
        if seed is None or str(seed) in ("-1", "random"):
            raise InputError(
                "--picture-name: a random seed is not known before it is drawn; use {id} or "
                "{index} in place of {seed}."
            )
        return seed


def _loras(task: Mapping[str, Any]) -> str:
    loras = task.get("loras") or []
    paths = [lora.get("path") for lora in loras if isinstance(lora, Mapping)]
    names = [name_of(str(path)) for path in paths or [task.get("lora_path")] if path]
    return "+".join(names) or _NONE


def _parts(pattern: str, words: Words) -> list[tuple[str, str, str]]:
    """Literal text, field and format of each part of a pattern."""
    option = f"--picture-name {pattern}"
    try:
        parsed = list(Formatter().parse(pattern))
    except ValueError as error:
        raise InputError(f"{option}: {error}.") from None
    parts = []
    for literal, field, spec, conversion in parsed:
        if field is not None and (not re.fullmatch(r"\w+", field) or conversion):
            raise InputError(
                f"{option}: expected a field like {{prompt}} or {{index:04}}, found "
                f"{shown('{' + field + '}')}."
            )
        if not _SPEC.fullmatch(spec or ""):
            raise InputError(f"{option}: expected a width like {{index:04}}, found {shown(spec)}.")
        parts.append((literal, field or "", spec or ""))
    if not any(field for _, field, _ in parts):
        fields = ", ".join(f"{{{name}}}" for name in words.shown)
        raise InputError(
            f"{option}: names all pictures alike; use a field in it: {fields}, any setting, or "
            "what an entry says of itself."
        )
    return parts
