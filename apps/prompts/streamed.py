"""Entries of a large file, read one after the other while the run goes on, and never all at once.

Every form but YAML can be read so. A file that its beginning does not tell for certain, or that is
damaged, is read as a whole, as small files are, and has its error then.
"""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from apps.prompts.entry_list import Entries
from apps.prompts.forms import (
    JSON_ENDINGS,
    TABLE_ENDINGS,
    YAML_ENDINGS,
    begins_like_json,
    ending_says,
    is_json,
    is_yaml,
)
from apps.prompts.json_document import JsonDocument, NotStreamed
from apps.prompts.json_entries import entry_lines, of_document, read_line
from apps.prompts.lines import prompt_lines
from apps.prompts.text import STDIN, UTF8, encoding_of, lines_of, what_else
from apps.prompts.words import Words
from core.errors import InputError

LARGE = 16_000_000  # bytes: those of a hundred thousand prompts
HEAD = 1_000_000  # characters by which the form of a file is told


def read_large(path: Path, words: Words) -> Entries | None:
    """The entries of a large file, which are read when they are asked for.

    The file has to stay as it is until then.

    Returns:
        None where it has to be read as a whole.

    Raises:
        InputError: the header of a table cannot be used.
    """
    try:
        if path == STDIN or not path.is_file() or path.stat().st_size < LARGE:
            return None
        with path.open("rb") as content:
            start = content.read(HEAD)
        if encoding_of(start) != UTF8 or what_else(start) is not None:
            return None
        with lines_of(path) as stream:
            head = stream.read(HEAD)
        return _entries(path, head, words)
    except (OSError, ValueError, NotStreamed):  # whoever reads it as a whole says why
        return None


class Streamed(ABC):
    """Entries of a file, which is read anew each time that they are iterated over.

    Iterating raises an InputError once the file is no longer the one that was counted: what is read
    from then on would be other entries at the places of these.

    Raises:
        NotStreamed: no entry can be used, or not all can be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = ""  # of the newest entry
        with lines_of(path) as stream:
            self._stamp = _stamp(stream)
            if all(isinstance(entry, InputError) for _, entry in self._read(stream)):
                raise NotStreamed  # such as text in another encoding, which is one error
        with lines_of(path) as stream:
            self._count = self._counted(stream)
            self._check(stream)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        count = 0
        try:
            with lines_of(self._path) as stream:
                for place, entry in islice(self._read(stream), self._count):
                    self._check(stream)
                    self._place = place
                    count += 1
                    yield entry
        except (OSError, NotStreamed):  # it is gone, or damaged
            raise self._changed() from None
        if count < self._count:
            raise self._changed()

    def _check(self, stream: TextIO) -> None:
        if _stamp(stream) != self._stamp:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(
            f"{self._path}: it was changed while it was read. Leave it as it is for as long as it "
            "is read, and run again: what is done and still asked for is not done again."
        )

    def place(self, index: int) -> str:
        """Where the newest entry stands, which is the one of that number."""
        return self._place

    @abstractmethod
    def _read(self, stream: TextIO) -> Iterator[tuple[str, Any]]:
        """Place and content of each entry."""

    def _counted(self, stream: TextIO) -> int:
        return sum(1 for _ in self._read(stream))


class _Prompts(Streamed):
    """A prompt on each line."""

    def _read(self, stream: TextIO) -> Iterator[tuple[str, Any]]:
        return ((f"line {number}", entry) for number, entry in prompt_lines(stream))


class _Rows(Streamed):
    """The rows of a table."""

    def __init__(self, path: Path, head: str, words: Words) -> None:
        from apps.prompts.tables import Table, place_of  # most files need nothing of it

        try:
            self._table = Table(head, words)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        self._place_of = place_of
        super().__init__(path)

    def _read(self, stream: TextIO) -> Iterator[tuple[str, Any]]:
        for index, (line, entry) in enumerate(self._table.entries(self._below(stream))):
            yield self._place_of(index, line), entry

    def _counted(self, stream: TextIO) -> int:
        return self._table.count(self._below(stream))

    def _below(self, stream: TextIO) -> Iterable[str]:
        return islice(stream, self._table.header_ends, None)


class _JsonLines(Streamed):
    """JSONL."""

    def _read(self, stream: TextIO) -> Iterator[tuple[str, Any]]:
        return (("", read_line(number, line)) for number, line in entry_lines(stream))

    def _counted(self, stream: TextIO) -> int:
        return sum(1 for _ in entry_lines(stream))


class _Elements(Streamed):
    """The elements of a list in a JSON document.

    Attributes:
        document: that was read, in which the list has its first element alone.
        listed: this list.
    """

    def __init__(self, path: Path, words: Words) -> None:
        self._lists = words.lists
        self.document: Any = None
        self.listed: list[Any] = []
        super().__init__(path)

    def _read(self, stream: TextIO) -> Iterator[tuple[str, Any]]:
        return (("", entry) for entry in JsonDocument(stream, self._lists).elements())

    def _counted(self, stream: TextIO) -> int:
        document, count, first = JsonDocument(stream, self._lists), 0, None
        for entry in document.elements():
            first = entry if not count else first
            count += 1
        key = document.key
        self.listed = [first]
        self.document = self.listed if key is None else {**document.around, key: self.listed}
        return count


def _stamp(stream: TextIO) -> tuple[int, ...]:
    """By which an open file is known, and a change of what it holds."""
    found = os.fstat(stream.fileno())
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _entries(path: Path, head: str, words: Words) -> Entries:
    ending = path.suffix.lower()
    if ending in JSON_ENDINGS or begins_like_json(head, ending):
        return _of_json(path, head, words)
    if ending in YAML_ENDINGS or is_json(head, ending, words):
        raise NotStreamed
    if not ending_says(ending) and is_yaml(head, words):
        raise NotStreamed
    from apps.prompts.tables import is_table

    if ending in TABLE_ENDINGS or is_table(head, words):
        rows = _Rows(path, head, words)
        return Entries(rows, places=rows.place, by_id=True)
    prompts = _Prompts(path)
    return Entries(prompts, places=prompts.place)


def _of_json(path: Path, head: str, words: Words) -> Entries:
    ending = path.suffix.lower()
    if ending not in JSON_ENDINGS and not is_json(head, ending, words):
        raise NotStreamed  # such as prompts of which the first stands in quotes
    first = list(islice(entry_lines(io.StringIO(head)), 2))
    if len(first) > 1 and isinstance(read_line(*first[0]), dict | str):
        return Entries(_JsonLines(path))
    elements = _Elements(path, words)
    found = of_document(path, elements.document, words)
    if found.entries is not elements.listed:
        raise NotStreamed  # they are another key's, which has no list
    return replace(found, entries=elements)
