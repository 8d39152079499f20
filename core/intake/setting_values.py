"""Values of settings as people write them: what is set, what is a number, what is a size."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import InputError
from core.intake import spellings
from core.seeds import read_seed
from core.validation import shown

_SIZE = re.compile(r"\s*([0-9]{1,6})\s*(?:px)?\s*[x×*,]\s*([0-9]{1,6})\s*(?:px)?\s*", re.IGNORECASE)
_SIDE = re.compile(r"\s*([0-9]{1,6})\s*(?:px)?\s*")


@dataclass(frozen=True)
class Given:
    """A value, and how its key is written where it stands."""

    value: Any
    key: str


def is_set(value: Any) -> bool:
    """Whether a value is set: real files leave fields empty where they mean "not set"."""
    if isinstance(value, float) and math.isnan(value):  # as tables have it
        return False
    return value is not None and not (isinstance(value, str) and not value.strip())


def is_empty(value: Any) -> bool:
    """An object or list without content; PHP writes both as `[]`."""
    return isinstance(value, (list, Mapping)) and not value


def sides(given: Given) -> Iterable[tuple[str, Any]]:
    """Width and height from such as "512x768", [512, 768], {"width": 512, "height": 768} or 512.

    Raises:
        InputError: it is no size.
    """
    value = given.value
    if isinstance(value, str) and value.strip().lower() == "auto":  # OpenAI's "as the model likes"
        return ()
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return (("width", int(match[1])), ("height", int(match[2])))
    if isinstance(value, str) and (match := _SIDE.fullmatch(value)):
        value = int(match[1])
    if isinstance(value, list) and len(value) == 2 and all(map(is_number, value)):
        return (("width", value[0]), ("height", value[1]))
    if isinstance(value, Mapping):
        found = {spellings.setting(k): v for k, v in value.items() if is_set(v)}
        if found and set(found) <= {"width", "height"}:
            return [(str(side), length) for side, length in found.items()]
    if is_number(value) and not isinstance(value, str):
        return (("width", value), ("height", value))
    if is_empty(value):
        return ()
    raise InputError(f"{given.key}: expected a size such as '512x768' (found {shown(value)}).")


def is_size(given: Given) -> bool:
    """Whether `sides` can read it, and finds some."""
    try:
        return bool(list(sides(given)))
    except InputError:
        return False


def is_number(value: Any) -> bool:
    """Whether it is a number or its text; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    try:
        float(value)
    except (ValueError, OverflowError):
        return False
    return True


def is_seed(value: Any) -> bool:
    """Whether it is a seed, or asks for one at random."""
    try:
        read_seed(value)
    except ValueError:
        return False
    return True


def same(one: Any, other: Any) -> bool:
    """Whether two spellings of a setting say the same, as 512 and "512" do."""
    if one is other:
        return True
    if is_number(one) and is_number(other):
        exact = isinstance(one, int) and isinstance(other, int)
        return one == other if exact else float(one) == float(other)
    if isinstance(one, str) and isinstance(other, str):
        return one.strip() == other.strip()
    return False
