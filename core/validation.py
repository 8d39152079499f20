"""Pydantic's errors in this project's words: field, value, what would be right."""

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

from pydantic import ValidationError

MAX_SHOWN = 80  # characters of a bad value that a message repeats
# A value may be gigabytes, or a few lists inside of each other that are endless written out.
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 2 * MAX_SHOWN
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 8
_SHORT.maxlevel = 3


MAX_PROBLEMS = 5  # of one message
ALIKE = 0.8  # of a key and one of another section, as difflib measures it
# What pydantic puts behind a key for each kind of value that it tried: `literal['auto']`, `int`.
_TRIED = re.compile(r"(literal|function-\w+|constrained-\w+|tuple|list|nullable)(\[.*|$)|int|float")
_OWN_WAYS = re.compile(r", (unable to parse string as an? \w+|got a number with a fractional part)")
_USUAL_START = "Input should be "
Place = tuple[int | str, ...]  # of a key: the keys and indices that lead to it


def describe(
    error: ValidationError,
    known: list[str] | Callable[[Place], list[str]] | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> str:
    """Every problem of `error` in one sentence.

    Args:
        known: names for misspelt keys, or what finds those that may stand at a key's place.
        elsewhere: what keys are called in whole that stand at other places, by what people write.
    """
    problems: dict[str, list[dict[str, Any]]] = {}
    for one in error.errors():
        key = ".".join(str(part) for part in _key_of(one["loc"]))
        problems.setdefault(key, []).append(dict(one))
    text = "; ".join(
        _describe_key(
            key, same, known(same[0]["loc"]) if callable(known) else known or [], elsewhere
        )
        for key, same in list(problems.items())[:MAX_PROBLEMS]
    )
    return text if text.endswith("?") else f"{text}."


def _key_of(place: Place) -> Place:
    """A key's place, without the names of alternatives that pydantic tried for its value."""
    parts = [part for part in place if not (isinstance(part, str) and _TRIED.fullmatch(part))]
    return tuple(parts or place)


def _describe_key(
    key: str, same: Sequence[dict[str, Any]], known: list[str], elsewhere: Mapping[str, str] | None
) -> str:
    """All that is wrong with one key; of a value that may be of several kinds, what it may be."""
    first = same[0]
    name = str(_key_of(first["loc"])[-1]) if first["loc"] else ""
    key = key or "value"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        near = get_close_matches(name, known, n=1)
        other = get_close_matches(name.lower(), elsewhere or {}, n=1, cutoff=ALIKE)
        meant = near[0] if near else (elsewhere or {})[other[0]] if other else None
        return f"{shown(key)}: unknown key{f'; did you mean {meant!r}?' if meant else ''}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{key}: is missing"
    message = _message(first)
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        # Keys that exclude each other, which the message names: the section would bury them.
        return message if not first["loc"] else f"{key}: {message}"
    others = [_message(e).removeprefix(_USUAL_START) for e in same[1:]]
    text = " or ".join(dict.fromkeys([f"{message[:1].lower()}{message[1:]}", *others]))
    return f"{key}: {text} (found {shown(first['input'])})"


def _message(error: dict[str, Any]) -> str:
    """Pydantic's words for one problem, without those about its own ways."""
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{_USUAL_START}a section with keys and values"
    message = str(error["msg"]).removeprefix("Value error, ")
    return _OWN_WAYS.sub("", message).replace("a valid integer", "a whole number")


def misspelt(
    given: Iterable[object], wanted: Collection[str], known: Collection[str], alike: float = 0.6
) -> str:
    """The end of a sentence that misses one of `wanted`: the key that may have been meant for it.

    Args:
        known: keys that mean something else.
        alike: of two keys, as difflib measures it.
    """
    for key in given:
        if isinstance(key, str) and key not in known and get_close_matches(key, wanted, 1, alike):
            return f"; is {shown(key)} misspelt?"
    return "."


def text_of_value(value: Any) -> str | None:
    """A value of a table or of JSON as text; None for null and NaN, which are no value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def shown(value: Any) -> str:
    """A bad value, printable and short whatever it is."""
    try:
        text = _SHORT.repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def shown_path(path: str) -> str:
    """A path, printable and short; of a long one its end stays, where the file's name stands."""
    room = MAX_SHOWN - 2  # for the quotes
    return repr(path if len(path) <= room else "…" + path[1 - room :])
