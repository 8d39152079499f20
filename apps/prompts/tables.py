"""CSV and TSV files, with one row for each prompt and a header that names the columns.

Columns are called like fields, by any of their usual names. The delimiter (comma, semicolon, tab
or bar) is the one that gives the most columns that mean something; a spreadsheet's line `sep=;`
says it outright. A damaged row fails alone.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from apps.prompts.entry_list import Entries
from apps.prompts.loras import read_loras
from apps.prompts.text import NOT_UTF8
from apps.prompts.words import Words
from core.errors import InputError
from core.paths import is_text
from core.validation import shown

DELIMITERS = ",;\t|"
_BLANK = " \t\r\n\ufeff"
_SEP = len("sep=;")
MAX_HEADER = 100_000  # characters of a header
_WITH_DECIMALS = ("cfg", "guidance_scale", "true_cfg_scale", "lora_strength")  # none has thousands
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_ALONE = 2  # columns: so many tell a table in a file whose name does not
_ENDS_EARLY = "unexpected end of data"  # csv's own words


class _Header:
    """The first line of a table.

    Attributes:
        line: its number, from 1.
        names: of the columns, as they are written.
    """

    def __init__(self, text: str, words: Words) -> None:
        start, delimiter, self.line = 0, "", 1
        while True:
            line, feed, _ = text[start : start + MAX_HEADER].partition("\n")
            if not feed or not _says_nothing(line):
                break
            if line.lower().startswith("sep=") and len(line.strip()) == _SEP:
                delimiter = line.strip()[-1]
            start, self.line = start + len(line) + 1, self.line + 1
        end = start + len(line) + 1
        line = line.strip("\ufeff")
        options = [delimiter] if delimiter else DELIMITERS
        self.delimiter = max(options, key=lambda d: _worth(_cells(line, d), words))
        self.names = [name.strip(_BLANK) for name in _cells(line, self.delimiter)]
        self._text, self._end = text, end

    @property
    def rest(self) -> str:
        """The text below it."""
        return self._text[self._end :]

    def fields(self, words: Words) -> list[str]:
        """What the columns give: a field, or the name of a column that means none.

        Raises:
            InputError: a name is there twice or misspelt, or no column gives the text.
        """
        if not all(map(is_text, self.names)):
            raise InputError(f"line {self.line}: {NOT_UTF8}")
        for place, name in enumerate(self.names):
            if name and name in self.names[:place]:
                raise InputError(f"line {self.line}: two columns are called {shown(name)}.")
        own = {words.field_of(name) for name in self.names}
        fields: list[str] = []
        for name in self.names:
            more = words.of_column(name)
            if words.field_of(name) is None and more is not None and more not in (*own, *fields):
                fields.append(more)
            else:
                fields.append(name)
        known = {words.field_of(name) for name in fields}
        for name in fields:
            near = words.unusual(name) if words.field_of(name) is None else None
            if near is not None and words.field_of(near) not in known:
                raise InputError(
                    f"line {self.line}: column {shown(name)} is unknown; did you mean {near!r}?"
                )
        if words.text not in known:
            names = ", ".join(shown(name) for name in self.names[:8])
            raise InputError(
                f"line {self.line}: no column gives the {words.thing}; the first line has to name "
                f"the columns, one of them {words.thing!r} (found {names})."
            )
        return fields


def is_table(text: str, words: Words) -> bool:
    """Whether a text begins with a header: names of columns, one of them of the prompt."""
    try:
        header = _Header(text, words)
    except csv.Error:
        return False
    fields = [words.of_column(name) for name in header.names]
    if words.text not in fields:
        return False
    if len(fields) < _ALONE:
        return words.field_of(header.names[0]) == words.text
    return sum(field is not None for field in fields) >= max(_ALONE, len(fields) / 2)


def read_table(text: str, words: Words) -> Entries:
    """The rows of a table.

    Raises:
        InputError: its header cannot be used; the message lacks the file.
    """
    table = Table(text, words)
    entries: list[Any] = []
    lines: list[int] = []
    for line, entry in table.entries(io.StringIO(table.rest, newline="")):
        entries.append(entry)
        lines.append(line)
    return Entries(entries, places=lambda index: place_of(index, lines[index]), by_id=True)


def place_of(index: int, line: int) -> str:
    """Where a row stands."""
    return f"row {index + 1} (line {line})"


class Table:
    """What the header of a table says of its rows.

    Args:
        text: begins with the header; rows may follow.

    Attributes:
        header_ends: number of the line that the header is on.

    Raises:
        InputError: the header cannot be used; the message lacks the file.
    """

    def __init__(self, text: str, words: Words) -> None:
        try:
            self._header = _Header(text, words)
            self._fields = self._header.fields(words)
        except csv.Error as error:
            raise InputError(f"line 1: {error}.") from None
        self._words = words
        self.header_ends = self._header.line

    @property
    def rest(self) -> str:
        """The text below the header."""
        return self._header.rest

    def entries(self, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
        """Number of its first line and entry of each row.

        Args:
            lines: those below the header.
        """
        for line, row in _rows(lines, self._header.delimiter):
            if isinstance(row, InputError):
                yield line + self.header_ends, row
            else:
                entry = _entry(row, self._fields, self._header, self._words)
                yield line + self.header_ends, entry

    def count(self, lines: Iterable[str]) -> int:
        """How many rows there are.

        Args:
            lines: those below the header.
        """
        return sum(1 for _ in _rows(lines, self._header.delimiter))


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str] | InputError]]:
    """Number of its first line and cells of each row that is not blank."""
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        skipinitialspace=delimiter != "\t",
        strict=True,
    )
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield first, InputError(_in_our_words(error))
            continue
        if any(cell.strip(_BLANK) for cell in row):
            yield first, row


def _in_our_words(error: csv.Error) -> str:
    if _ENDS_EARLY in str(error):
        return (
            "a quotation mark opens a cell and is never closed, so the rest of the file is part of "
            'it; write quotation marks inside of a cell twice ("").'
        )
    return f"not valid CSV: {error}; put cells with quotation marks in quotation marks."


def _entry(row: Sequence[str], fields: Sequence[str], header: _Header, words: Words) -> Any:
    if any(cell.strip(_BLANK) for cell in row[len(fields) :]):
        return InputError(
            f"{len(row)} cells, but the header names {len(fields)} columns; put a cell that "
            f"contains {_called(header.delimiter)} in quotation marks."
        )
    if not all(map(is_text, row)):
        return InputError(NOT_UTF8)
    try:
        return {
            field: _value(field, cell, words)
            for field, cell in zip(fields, row, strict=False)
            if field and cell.strip(_BLANK)
        }
    except InputError as error:
        return error


def _value(field: str, cell: str, words: Words) -> Any:
    """What a cell says: text, except where a field is a list or an object.

    A spreadsheet writes numbers as its user's country does. Where a comma can only begin decimals,
    it does.
    """
    meaning = words.field_of(field)
    if meaning == "lora":
        try:
            return read_loras(cell)
        except InputError as error:
            raise InputError(f"{field}: {error}") from None
    if meaning == "metadata":
        with suppress(ValueError, RecursionError):
            return json.loads(cell)
    text = cell.strip(_BLANK)
    if meaning in _WITH_DECIMALS and _DECIMAL_COMMA.fullmatch(text):
        return text.replace(",", ".")
    return text


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=delimiter != "\t"), [])


def _worth(cells: Sequence[str], words: Words) -> tuple[int, int]:
    """How much speaks for a delimiter: columns that mean something, then columns."""
    return sum(words.of_column(cell.strip(_BLANK)) is not None for cell in cells), len(cells)


def _says_nothing(line: str) -> bool:
    """Whether a line above the header is blank, a comment, or a spreadsheet's `sep=`."""
    text = line.strip(_BLANK)
    return not text or text.startswith("#") or text.lower().startswith("sep=")


def _called(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}.get(delimiter, "it")
