"""A text file with a prompt on each line. Blank lines and lines that begin with `#` are none."""

from collections.abc import Iterable, Iterator
from typing import Any

from apps.prompts.entry_list import Entries
from apps.prompts.text import NOT_UTF8
from core.errors import InputError
from core.paths import is_text

_BLANK = " \t\r\n\f\v\ufeff"  # around a line; files that were joined have byte order marks inside
COMMENT = "#"
ESCAPED = "\\#"  # for a prompt that begins with `#`


def read_lines(text: str) -> Entries:
    """The prompts of a text; a line that is no text is an InputError in its place."""
    entries: list[Any] = []
    numbers: list[int] = []
    for number, entry in prompt_lines(text.split("\n")):
        entries.append(entry)
        numbers.append(number)
    return Entries(entries, places=lambda index: f"line {numbers[index]}")


def prompt_lines(lines: Iterable[str]) -> Iterator[tuple[int, str | InputError]]:
    """Number and prompt of each line that holds one."""
    for number, raw in enumerate(lines, start=1):
        line = raw.strip(_BLANK)
        if not line or line.startswith(COMMENT):
            continue
        if not is_text(line):
            yield number, InputError(NOT_UTF8)
        else:
            yield number, line.removeprefix("\\") if line.startswith(ESCAPED) else line
