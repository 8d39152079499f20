"""A text file with a prompt on each line. Blank lines and lines that begin with `#` are none."""

from typing import Any

from apps.prompts.entry_list import Entries
from apps.prompts.text import is_text
from core.errors import InputError

_BLANK = " \t\r\n\f\v\ufeff"  # around a line; files that were joined have byte order marks inside
COMMENT = "#"
ESCAPED = "\\#"  # for a prompt that begins with `#`


def read_lines(text: str) -> Entries:
    """The prompts of a text; a line that is no text is an InputError in its place."""
    entries: list[Any] = []
    numbers: list[int] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip(_BLANK)
        if not line or line.startswith(COMMENT):
            continue
        numbers.append(number)
        if not is_text(line):
            entries.append(InputError("not UTF-8 text."))
        else:
            entries.append(line.removeprefix("\\") if line.startswith(ESCAPED) else line)
    return Entries(entries, places=lambda index: f"line {numbers[index]}")
