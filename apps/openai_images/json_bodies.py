"""JSON as RFC 8259 has it, before anything reads it.

Python's own reader takes more: NaN, numbers that become infinite, keys twice of which the last
counts, half of a surrogate pair, and depths at which what writes JSON gives up.
"""

import json
import math
import re
from typing import Any, NoReturn

from apps.openai_images.errors import ApiError

MAX_DEPTH = 64
MAX_DIGITS = 20  # of an integer: 2**64 has as many
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class NotJson(ValueError):
    """Why a document is refused."""


def check_json(body: bytes) -> None:
    """Raises ApiError for a body that is no JSON, or none that a request can be."""
    try:
        read_json(body)
    except NotJson as error:
        message = f"The body is not valid JSON: {error}."
        raise ApiError(400, message, "invalid_json") from None


def read_json(content: bytes) -> Any:
    """The value of a document.

    Raises:
        NotJson: it is none, or none that a request can be.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson(f"it is not UTF-8 at byte {error.start}") from None
    try:
        _check_depth(content)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_integer,
        )
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise NotJson("a string has half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from None
    return value


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise NotJson(f"it is nested more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise NotJson(f"an object has the key {twice[:40]!a} twice")
    return made


def _no_number(word: str) -> NoReturn:
    raise NotJson(f"{word} is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotJson("a number is too large")
    return number


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise NotJson("a number is too large")
    return int(digits)
