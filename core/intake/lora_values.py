"""Several LoRAs as people write them: lists of many forms, and lists of their strengths."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from core.errors import InputError
from core.intake import spellings
from core.intake.setting_values import Given, is_number
from core.tasks import Lora
from core.validation import shown


def listed(value: Any) -> Any:
    """A list, if it is one in an object: {"ink": 0.8}, {"lora_1": {"path": …}}, or PHP's."""
    if not isinstance(value, Mapping) or not value or any(map(spellings.lora_field, value)):
        return value
    parts = list(value.values())
    if all(isinstance(part, Mapping) or str(key).isdecimal() for key, part in value.items()):
        return parts
    misspelt = any(isinstance(name, str) and spellings.meant(name, True) for name in value)
    return value if misspelt or not are_numbers(parts) else [list(pair) for pair in value.items()]


def is_pair(value: Any) -> bool:
    """Whether it is a LoRA's path and its strength."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and is_number(value[1])


def are_numbers(value: Any) -> bool:
    """Whether it is a list of strengths."""
    return isinstance(value, list) and bool(value) and all(map(is_number, value))


def only_strength(strength: Given) -> Any:
    """The strength of the only LoRA.

    Raises:
        InputError: there are several.
    """
    each = _each(strength)
    if len(each) != 1:
        raise _unclear(strength, _counts(len(each), 1))
    return each[0]


def with_strengths(
    loras: list[dict[str, Any]], strength: Given | None, beside: bool
) -> list[dict[str, Any]]:
    """LoRAs with a list of strengths that stands elsewhere.

    Args:
        beside: it stands in the place that names the LoRAs.

    Raises:
        InputError: there is no telling which strength is for which LoRA.
    """
    if strength is None:
        return loras
    each = _each(strength)
    if len(each) != len(loras):
        raise _unclear(strength, _counts(len(each), len(loras)))
    if beside and any("strength" in lora for lora in loras):
        raise _unclear(strength, "some of the LoRAs have a strength of their own")
    return [{**lora, "strength": value} for lora, value in zip(loras, each, strict=True)]


def _each(strength: Given) -> list[Any]:
    return strength.value if isinstance(strength.value, list) else [strength.value]


def _counts(strengths: int, loras: int) -> str:
    return f"{strengths} strength{'s' * (strengths > 1)} for {loras} LoRA{'s' * (loras > 1)}"


def _unclear(strength: Given, problem: str) -> InputError:
    return InputError(
        f"{strength.key}: {shown(strength.value)}: {problem}; give each LoRA's strength beside its "
        "path in `loras`."
    )


def as_in_a_file(value: Any) -> Any:
    """What Python code gives, in JSON's types."""
    if isinstance(value, Lora):
        return {"path": value.path, "strength": value.strength}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [as_in_a_file(part) for part in value]
    if isinstance(value, Mapping):
        return {key: as_in_a_file(part) for key, part in value.items()}
    return value
