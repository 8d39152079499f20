"""Pydantic's errors in this project's words: field, value, what would be right."""

from collections.abc import Callable, Collection, Iterable
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


Place = tuple[int | str, ...]  # of a key: the keys and indices that lead to it


def describe(
    error: ValidationError, known: list[str] | Callable[[Place], list[str]] | None = None
) -> str:
    """Every problem of `error` in one sentence.

    Args:
        known: names for misspelt keys, or what finds those that may stand at a key's place.
    """
    text = "; ".join(
        _describe_one(dict(e), known(e["loc"]) if callable(known) else known or [])
        for e in error.errors()[:5]
    )
    return text if text.endswith("?") else f"{text}."


def _describe_one(e: dict[str, Any], known: list[str]) -> str:
    key = ".".join(str(part) for part in e["loc"] if part not in ("literal['auto']",)) or "value"
    if e["type"] == "extra_forbidden" or e["type"] == "unexpected_keyword_argument":
        near = get_close_matches(str(e["loc"][-1]), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{shown(key)}: unknown key{hint}"
    if e["type"] in ("missing", "missing_argument"):
        return f"{key}: is missing"
    message = e["msg"].removeprefix("Value error, ")
    if e["type"] == "value_error" and isinstance(e["input"], dict):
        # Keys that exclude each other, which the message names: the section would bury them.
        return message if not e["loc"] else f"{key}: {message}"
    return f"{key}: {message[:1].lower()}{message[1:]} (found {shown(e['input'])})"


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


def shown(value: Any) -> str:
    """A bad value, printable and short whatever it is."""
    try:
        text = _SHORT.repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
