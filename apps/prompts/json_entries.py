"""The entries of a JSON or JSONL file of prompts.

A JSON document that is damaged is one error. Of JSONL each line is an entry of its own: a damaged
one, be it the first, is an error in its place.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from apps.prompts.entry_list import Entries
from apps.prompts.text import NOT_UTF8, decoded, not_text, shown_path
from apps.prompts.words import Words
from core.errors import InputError
from core.intake import spellings
from core.paths import is_text
from core.validation import shown

_BLANK = " \t\r\n\ufeff"  # around a line; files that were joined have byte order marks inside
_COMMENTS = ("#", "//")


def read_json_entries(path: Path, content: bytes, words: Words) -> Entries:
    """Read JSON or JSONL.

    Raises:
        InputError: not text, not JSON, or of no known form.
    """
    try:
        text = decoded(content)
    except UnicodeDecodeError as error:
        lines = _json_lines(decoded(content, "surrogateescape")) if _is_utf8(error) else None
        if lines is not None and not all(isinstance(line, InputError) for line in lines):
            return Entries(lines)
        raise not_text(path, error) from None
    try:
        data = parsed(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError):
            lines = _json_lines(text)
            if lines is not None:
                return Entries(lines)
        hint = _hint(text, words)
        raise InputError(
            f"{shown_path(path)}: not valid JSON: {_reason(error)}{hint or '.'}"
        ) from None
    return of_document(path, data, words)


def _is_utf8(error: UnicodeDecodeError) -> bool:
    return error.encoding.startswith("utf-8")


def _hint(text: str, words: Words) -> str:
    """What to do where a text does not look like JSON at all."""
    start = text.strip(_BLANK)
    if not start or start[0] in '[{"' or start[0].isdigit():
        return ""
    return (
        f"; {words.thing}s that stand one on a line belong into a file called .txt, tables into "
        ".csv."
    )


def of_document(path: Path, data: Any, words: Words) -> Entries:
    """The entries of a whole document.

    Raises:
        InputError: it is of no known form.
    """
    if isinstance(data, list):
        return Entries(data)
    if isinstance(data, str) and data.strip():
        return Entries([data])  # JSONL of one line
    if not isinstance(data, dict):
        raise _unknown_form(path, "none", words)
    keys = {spellings.plain(key): key for key in reversed(data)}
    entries = next((keys[name] for name in words.lists if name in keys), "")
    listed = _listed(data.get(entries))
    if listed is not None:
        persona = data.get(keys.get("persona", ""))
        if persona and not isinstance(persona, dict):
            raise InputError(
                f"{shown_path(path)}: persona: expected an object, found {shown(persona)}."
            )
        around = {k: v for k, v in data.items() if k not in (entries, keys.get("persona"))}
        of_persona = bool(persona) or "tweets" in keys
        return Entries(listed, persona or {}, around, of_persona)
    if "tweets" not in keys and any(map(words.asks, data)):
        return Entries([data])  # JSONL of one line
    raise _unknown_form(path, f"an object with the keys {shown(list(data)[:6])}", words)


def _listed(value: Any) -> list[Any] | None:
    """A list; PHP writes one with gaps as an object of numbers."""
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
        return list(value.values())
    return value if isinstance(value, list) else None


def _unknown_form(path: Path, found: str, words: Words) -> InputError:
    return InputError(
        f"{shown_path(path)}: expected a list of objects or {words.thing}s, or an object with a "
        f"list `{words.lists[0]}`; found {found}."
    )


def _json_lines(text: str) -> list[Any] | None:
    """The entries of JSONL; None if `text` is a damaged document, and no JSONL.

    A first line that is an entry settles it. If it is damaged, whole entries among the lines are
    weighed against lines that can only be parts of a longer document.
    """
    # By line feeds alone: JSON text may hold U+2028 as it is.
    lines = list(entry_lines(text.split("\n")))
    if not lines:
        return None
    entries = [read_line(number, line) for number, line in lines]
    if not isinstance(entries[0], (dict, str)):
        if lines[0][1].startswith("[") and isinstance(entries[0], InputError):
            return None
        whole = sum(isinstance(entry, (dict, str)) for entry in entries)
        if whole <= sum(_is_part(line, e) for (_, line), e in zip(lines, entries, strict=True)):
            return None
    return entries


def entry_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Number and content of each line of JSONL that is neither blank nor a comment."""
    for number, raw in enumerate(lines, start=1):
        line = raw.strip(_BLANK)
        if line and not line.startswith(_COMMENTS):
            yield number, line


def read_line(number: int, line: str) -> Any:
    """What a line of JSONL says; an InputError if it is no JSON."""
    if not is_text(line):
        return InputError(f"line {number}: {NOT_UTF8}")
    try:
        return parsed(line)
    except (ValueError, RecursionError) as error:
        return InputError(f"line {number}: not valid JSON: {_reason(error)}.")


def parsed(text: str) -> Any:
    """A JSON value. NaN, as tables write it where a cell is empty, counts as left out."""
    return json.loads(text, parse_constant=constant)


def constant(name: str) -> float | None:
    """What NaN and the infinities stand for, which JSON itself does not know."""
    return None if name == "NaN" else float(name)


def _is_part(line: str, entry: Any) -> bool:
    """Whether a line can only belong to a document that takes several lines."""
    if not isinstance(entry, InputError):
        return False
    if line[0] in '[]}"' or line == "{" or line.endswith(("[", "{")):
        return True
    return line.endswith(",") and not isinstance(read_line(0, line[:-1]), InputError)


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
