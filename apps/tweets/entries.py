"""The entries of a tweets file, and what stands around them, without a look inside of an entry.

A JSON document that is damaged is one error. Of JSONL each line is an entry of its own: a damaged
one, be it the first, is an error in its place.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.intake import spellings
from core.validation import shown

MAX_FILE_BYTES = 1_000_000_000
_BLANK = " \t\r\n\ufeff"  # around a line; files that were joined have byte order marks inside
_COMMENTS = ("#", "//")


@dataclass(frozen=True)
class Entries:
    """What a file holds.

    Attributes:
        entries: JSON values; an InputError stands for a line that is none.
        persona: empty where there is none.
        around: of an object that holds a list of entries, the rest.
        of_persona: the form with `tweets`, in which texts stand beside settings.
    """

    entries: Sequence[Any]
    persona: Mapping[str, Any] = field(default_factory=dict)
    around: Mapping[str, Any] = field(default_factory=dict)
    of_persona: bool = False

    @property
    def name(self) -> Any:
        """The persona's."""
        names = {spellings.plain(str(key)): value for key, value in self.persona.items()}
        return self.persona.get("name", names.get("name"))


def read_entries(path: Path) -> Entries:
    """Read a tweets file of any form.

    Raises:
        InputError: unreadable, not UTF-8, not JSON, or of no known form.
    """
    content = _read(path)
    try:
        text = _decoded(content)
    except UnicodeDecodeError as error:
        lines = _json_lines(_decoded(content, "surrogateescape"))
        if lines is not None and not all(isinstance(line, InputError) for line in lines):
            return Entries(lines)
        raise InputError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from None
    try:
        data = _parsed(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError):
            lines = _json_lines(text)
            if lines is not None:
                return Entries(lines)
        raise InputError(f"{path}: not valid JSON: {_reason(error)}.") from None
    return _of_document(path, data)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; a JSON or JSONL file is needed.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: larger than 1 GB; split it.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read: {reason}.") from None


def _decoded(content: bytes, errors: str = "strict") -> str:
    """Decode a file as text, with line feeds alone between lines."""
    return content.decode("utf-8-sig", errors).replace("\r\n", "\n").replace("\r", "\n")


def _of_document(path: Path, data: Any) -> Entries:
    if isinstance(data, list):
        return Entries(data)
    if isinstance(data, str) and data.strip():
        return Entries([data])  # JSONL of one line
    if not isinstance(data, dict):
        raise _unknown_form(path, "none")
    keys = {spellings.plain(key): key for key in reversed(data)}
    entries = keys.get("tweets", keys.get("prompts", ""))
    listed = _listed(data.get(entries))
    if listed is not None:
        persona = data.get(keys.get("persona", ""))
        if persona and not isinstance(persona, dict):
            raise InputError(f"{path}: persona: expected an object, found {shown(persona)}.")
        around = {k: v for k, v in data.items() if k not in (entries, keys.get("persona"))}
        of_persona = bool(persona) or "tweets" in keys
        return Entries(listed, persona or {}, around, of_persona)
    if "tweets" not in keys and any(map(_asks_for_a_picture, data)):
        return Entries([data])  # JSONL of one line
    raise _unknown_form(path, f"an object with the keys {shown(list(data)[:6])}")


def _listed(value: Any) -> list[Any] | None:
    """A list; PHP writes one with gaps as an object of numbers."""
    if isinstance(value, dict) and value and all(key.isdecimal() for key in value):
        return list(value.values())
    return value if isinstance(value, list) else None


def _unknown_form(path: Path, found: str) -> InputError:
    return InputError(
        f"{path}: expected a list of objects or prompts, or an object with a list `tweets`; "
        f"found {found}."
    )


def _asks_for_a_picture(key: str) -> bool:
    return (
        spellings.prompt_source(key) is not None or spellings.container(key) == "image_generation"
    )


def _json_lines(text: str) -> list[Any] | None:
    """The entries of JSONL; None if `text` is a damaged document, and no JSONL.

    A first line that is an entry settles it. If it is damaged, whole entries among the lines are
    weighed against lines that can only be parts of a longer document.
    """
    # By line feeds alone: JSON text may hold U+2028 as it is.
    lines = [(number, line.strip(_BLANK)) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith(_COMMENTS)]
    if not lines:
        return None
    entries = [_entry(number, line) for number, line in lines]
    if not isinstance(entries[0], (dict, str)):
        if lines[0][1].startswith("[") and isinstance(entries[0], InputError):
            return None
        whole = sum(isinstance(entry, (dict, str)) for entry in entries)
        if whole <= sum(_is_part(line, e) for (_, line), e in zip(lines, entries, strict=True)):
            return None
    return entries


def _entry(number: int, line: str) -> Any:
    try:
        line.encode()
        return _parsed(line)
    except UnicodeEncodeError:  # bytes that are none of UTF-8's
        return InputError(f"line {number}: not UTF-8 text.")
    except (ValueError, RecursionError) as error:
        return InputError(f"line {number}: not valid JSON: {_reason(error)}.")


def _parsed(text: str) -> Any:
    """A JSON value. NaN, as tables write it where a cell is empty, counts as left out."""
    return json.loads(text, parse_constant=lambda name: None if name == "NaN" else float(name))


def _is_part(line: str, entry: Any) -> bool:
    """Whether a line can only belong to a document that takes several lines."""
    if not isinstance(entry, InputError):
        return False
    if line[0] in '[]}"' or line == "{" or line.endswith(("[", "{")):
        return True
    return line.endswith(",") and not isinstance(_entry(0, line[:-1]), InputError)


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
