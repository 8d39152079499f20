"""Settings of tasks as options write them: FIELD=VALUE, and grids of several values."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.prompts.loras import read_lora, read_loras
from apps.prompts.number_ranges import read_seeds
from apps.prompts.words import Words
from core.errors import InputError
from core.intake.settings_layer import GUIDANCE, OF_LORAS
from core.lora_paths import name_of
from core.names import cleaned, cut
from core.validation import shown

_LONGEST = 40  # characters of a value in a picture's name
_ONE_SETTING = (GUIDANCE, OF_LORAS)  # fields that take each other's place


@dataclass(frozen=True)
class Choice:
    """One way to draw a task.

    Attributes:
        label: what the names of pictures say of it; empty for nothing.
        fields: that the task gets, in place of its own.
    """

    label: str
    fields: Mapping[str, Any]


def changed(task: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task with others in place of its own."""
    gone = {name for names in _ONE_SETTING if set(names[:2]) & changes.keys() for name in names}
    if "seed" in changes:
        gone.add("seed_is_random")
    return {**{k: v for k, v in task.items() if k not in gone}, **changes}


def loras_of(texts: Sequence[str]) -> dict[str, Any]:
    """Fields for the LoRAs of `--lora FILE:STRENGTH`, of which there may be several.

    Raises:
        InputError: one of them names no file.
    """
    try:
        loras = [read_lora(text) for text in texts]
    except InputError as error:
        raise InputError(f"--lora: {error}") from None
    return _fields_of(loras) if loras else {}


def read_changes(texts: Sequence[str], words: Words) -> dict[str, Any]:
    """Fields from several `--set FIELD=VALUE`.

    Raises:
        InputError: one of them is none, or two say different things.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        key, value = _parts(text, "--set", "FIELD=VALUE, like steps=8")
        new = _value(key, value, words, f"--set {text}").fields
        _refuse_both(fields, new, f"--set {text}")
        fields |= new
    return fields


def read_grid(texts: Sequence[str], words: Words) -> list[list[Choice]]:
    """The axes of several `--grid FIELD=VALUE,VALUE`.

    Raises:
        InputError: one of them is no axis, or two are of one setting.
    """
    axes: list[list[Choice]] = []
    known: dict[str, Any] = {}
    for text in texts:
        axis = _axis(text, words)
        _refuse_both(known, axis[0].fields, f"--grid {text}")
        known |= axis[0].fields
        axes.append(axis)
    return axes


def _axis(text: str, words: Words) -> list[Choice]:
    key, values = _parts(text, "--grid", "FIELD=VALUE,VALUE, like cfg=1,3")
    if words.field_of(key) == "seed":
        return seed_axis(values, f"--grid {text}")
    try:
        each = [value.strip() for value in next(csv.reader([values], skipinitialspace=True))]
    except csv.Error as error:
        raise InputError(f"--grid {text}: {error}.") from None
    if not all(each):
        raise InputError(f"--grid {text}: a value between the commas is missing.")
    if len(set(each)) < len(each):
        raise InputError(f"--grid {text}: a value is there twice.")
    choices = [_value(key, value, words, f"--grid {text}") for value in each]
    if len({choice.label for choice in choices}) == len(choices):
        return choices
    name = cleaned(key, "-")
    return [Choice(f"{name}-{n}", c.fields) for n, c in enumerate(choices, start=1)]


def seed_axis(text: str, option: str) -> list[Choice]:
    """The axis of several seeds, such as 0-9.

    Raises:
        InputError: they are none.
    """
    try:
        return [Choice(f"seed{seed}", {"seed": seed}) for seed in read_seeds(text)]
    except InputError as error:
        raise InputError(f"{option}: {error}") from None


def _parts(text: str, option: str, form: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key.strip() or not equals or not value.strip():
        raise InputError(f"{option}: expected {form} (found {shown(text)}).")
    return key.strip(), value.strip()


def _value(key: str, value: str, words: Words, option: str) -> Choice:
    field = words.field_of(key)
    try:
        if field == "lora" or field == "lora_path":
            loras = read_loras(value)
            fields, shown_value = _fields_of(loras), _called(loras)
        else:
            fields, shown_value = dict(words.settings_of(key, value)), value
    except InputError as error:
        raise InputError(f"{option}: {error}") from None
    name = cut(cleaned(shown_value, "-."), _LONGEST).strip("_.")
    between = "" if name[:1].isdigit() and field not in ("lora", "lora_path") else "-"
    return Choice(f"{cleaned(key, '-')}{between}{name}", fields)


def _fields_of(loras: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not loras:
        return {"lora_path": None}
    if len(loras) > 1:
        return {"loras": list(loras)}
    strength = {"lora_strength": loras[0]["strength"]} if "strength" in loras[0] else {}
    return {"lora_path": loras[0]["path"], **strength}


def _called(loras: Sequence[Mapping[str, Any]]) -> str:
    names = (f"{name_of(x['path'])}{x.get('strength', '')}" for x in loras)
    return "+".join(names) or "none"


def _refuse_both(known: Mapping[str, Any], new: Mapping[str, Any], option: str) -> None:
    for names in _ONE_SETTING:
        both = [name for name in names[:2] if name in known or name in new]
        if len(both) > 1 and set(names[:2]) & known.keys() and set(names[:2]) & new.keys():
            raise InputError(f"{option}: {' and '.join(both)} are one setting; give one of them.")
    again = sorted(known.keys() & new.keys())
    if again:
        raise InputError(f"{option}: {again[0]} was given before; give it once.")
