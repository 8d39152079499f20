"""`{a|b}` in a prompt: one picture with a, and one with b.

Groups may stand inside of each other and options may be empty. Braces without a bar are the
prompt's own; a backslash before a brace or a bar makes it a character like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import InputError
from core.names import cleaned, cut

MOST = 10_000  # of one prompt
_LONGEST = 24  # characters of an option in a picture's name
_SPECIAL = "{|}"

_Text = list["str | _Group"]


@dataclass(frozen=True)
class _Group:
    options: Sequence[_Text]


def alternatives(prompt: str, field: str = "prompt") -> list[tuple[str, str]]:
    """Every reading of a prompt: what names say of it, and the prompt. One with "" if it is plain.

    Args:
        field: that the prompt is, for messages.

    Raises:
        InputError: a brace has no partner, or there are more than 10,000 readings.
    """
    if "{" not in prompt and "}" not in prompt:
        return [("", prompt)]
    try:
        text, end = _sequence(prompt, 0, inside=False)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
    assert end == len(prompt)
    if _count(text) > MOST:
        raise InputError(f"{field}: has more than {MOST} alternatives; write fewer of them.")
    found = list(dict.fromkeys(_readings(text)))
    labels = ["_".join(filter(None, map(_named, chosen))) for chosen, _ in found]
    if len(found) > 1 and (len(set(labels)) < len(labels) or not all(labels)):
        labels = [str(number) for number in range(1, len(found) + 1)]
    if len(found) == 1:
        labels = [""]
    return [(label, reading) for label, (_, reading) in zip(labels, found, strict=True)]


def _named(option: str) -> str:
    return cut(cleaned(option.strip(), "-"), _LONGEST).strip("_")


def _sequence(prompt: str, place: int, inside: bool) -> tuple[_Text, int]:
    """Text and groups up to the end of the prompt, or of the option that begins at `place`."""
    parts: _Text = []
    while place < len(prompt):
        char = prompt[place]
        if char == "\\" and prompt[place + 1 : place + 2] in tuple(_SPECIAL):
            parts.append(prompt[place + 1])
            place += 2
        elif char == "{":
            group, place = _group(prompt, place)
            parts += group
        elif char == "}" and not inside:
            raise InputError("has a } without a { before it; write \\} for the character.")
        elif char in "|}" and inside:
            break
        else:
            parts.append(char)
            place += 1
    return parts, place


def _group(prompt: str, start: int) -> tuple[_Text, int]:
    options, place = [], start
    while place < len(prompt) and prompt[place] != "}":
        option, place = _sequence(prompt, place + 1, inside=True)
        options.append(option)
    if place >= len(prompt):
        raise InputError("has a { without a } behind it; write \\{ for the character.")
    if len(options) == 1:  # no alternatives: braces that are meant as they are
        return ["{", *options[0], "}"], place + 1
    return [_Group(options)], place + 1


def _count(text: _Text) -> int:
    count = 1
    for part in text:
        if isinstance(part, _Group):
            count = min(count * sum(map(_count, part.options)), MOST + 1)
    return count


def _readings(text: _Text) -> list[tuple[tuple[str, ...], str]]:
    """The options that were chosen, and the text that they make."""
    found: list[tuple[tuple[str, ...], str]] = [((), "")]
    for part in text:
        if isinstance(part, str):
            found = [(chosen, before + part) for chosen, before in found]
            continue
        options = [
            (inner or (read,), read) for option in part.options for inner, read in _readings(option)
        ]
        found = [(chosen + c, before + read) for chosen, before in found for c, read in options]
    return found
