"""Rows of JSON files, one after another; pictures as text stay in the file (`LongText`).

A row is an element of a list, or an entry of an object with its key; `{"data": [...]}` stands for
its list. JSONL has one row a line.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.edit_benchmark.json_skeleton import Skeleton
from core.errors import InputError

LINES = (".jsonl", ".ndjson")
WRAPPED = "data"  # the key of an object that only wraps its list of rows
_LINE = 8 << 20  # characters of a line that are looked at to tell whether there are lines
_MOST = 1 << 30  # characters of one row
_SPACE = " \t\r\n"
_decode = json.JSONDecoder().raw_decode

Item = tuple[str, Any]
"""The key of a row, empty where it has none, and its value; an InputError for a bad line."""


def json_rows(file: Path) -> Iterator[Item]:
    """The rows of a JSON or JSONL file, in its order.

    Raises:
        InputError: the file cannot be read, is not JSON, or holds no rows; raised where it is met.
    """
    if file.suffix.lower() in LINES or _has_lines(file):
        yield from _lines(file)
        return
    stream = _Stream(file)
    start = stream.peek()
    if start == "[":
        for value in stream.elements():
            yield "", value
    elif start == "{":
        yield from _entries(stream)
    else:
        value = stream.value()
        raise InputError(
            f"{file}: expected a list or an object of rows, found a {type(value).__name__}."
        )
    if stream.peek():
        raise stream.wrong("text after its end")


def _entries(stream: "_Stream") -> Iterator[Item]:
    """Rows of an object; beside a wrapped list, other keys say nothing of pairs."""
    others: list[Item] = []
    wrapped = False
    for key in stream.entries():
        if key == WRAPPED and stream.peek() == "[":
            wrapped = True
            for value in stream.elements():
                yield "", value
            continue
        value = stream.value()
        if isinstance(value, dict | list):
            yield key, value
        else:
            others.append((key, value))
    if not wrapped:
        yield from others


def _lines(file: Path) -> Iterator[Item]:
    """Rows of a JSONL file; text may hold U+2028 and the like, so only a line feed ends a row."""
    skeleton = Skeleton(file)
    for number, line in enumerate(_split(skeleton.pieces())):
        try:
            text = line.decode("utf-8-sig" if number == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{file}: not UTF-8 text (line {number + 1}, byte {error.start})."
            ) from None
        if text.strip():
            try:
                yield "", skeleton.restored(json.loads(text))
            except (ValueError, RecursionError) as error:
                yield "", InputError(f"not valid JSON ({error}).")


def _split(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines of a text that comes in pieces."""
    begun: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            *whole, last = others
            yield from whole
            begun = [last]
    yield b"".join(begun)


def _has_lines(file: Path) -> bool:
    """Whether a file with another name holds an object per line."""
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as stream:
            if stream.read(1) != "{":
                return False
            stream.seek(0)
            first, second = stream.readline(_LINE), stream.readline(_LINE)
        return second[:1] == "{" and isinstance(json.loads(first), dict)
    except (OSError, ValueError, RecursionError):
        return False


class _Stream:
    """JSON text read in pieces; what was decoded is dropped."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._row = 0
        self._text, self._at = "", 0
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._skeleton = Skeleton(file)
        self._pieces = self._skeleton.pieces()
        self._ended = False

    def elements(self) -> Iterator[Any]:
        """The values of the list that begins here."""
        self._take("[")
        if self._taken("]"):
            return
        while True:
            self._row += 1
            yield self.value()
            if self._taken("]"):
                return
            self._take(",")

    def entries(self) -> Iterator[str]:
        """The keys of the object that begins here; the caller takes the value of each."""
        self._take("{")
        if self._taken("}"):
            return
        while True:
            self._row += 1
            key = self.value()
            if not isinstance(key, str):
                raise self.wrong("a key that is no text")
            self._take(":")
            yield key
            if self._taken("}"):
                return
            self._take(",")

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
                # A number may go on behind the end of what was read.
                if end < len(self._text) or self._ended:
                    self._at = end
                    return self._skeleton.restored(value)
            except (ValueError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    raise self.wrong(str(error).partition(":")[0]) from None
            if len(self._text) - self._at > _MOST:
                raise self.wrong(f"more than {_MOST >> 30} GiB without an end")
            # A row that is cut is decoded again: each time with twice as much, so not too often.
            self._read(len(self._text) - self._at)

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read(1)

    def wrong(self, what: str) -> InputError:
        if self._row:
            return InputError(f"{self._file}: not valid JSON at row {self._row}: {what}.")
        others = ""
        if self._file.suffix.lower() != ".json":
            others = (
                " Pairs come as JSON, JSONL, CSV, TSV, parquet or arrow, each with the suffix of "
                "its format, or as a folder."
            )
        return InputError(f"{self._file}: not valid JSON: {what}.{others}")

    def _take(self, mark: str) -> None:
        if not self._taken(mark):
            raise self.wrong(f"expected {mark!r}, found {self.peek() or 'the end'!r}")

    def _taken(self, mark: str) -> bool:
        if self.peek() != mark:
            return False
        self._at += 1
        return True

    def _read(self, least: int) -> None:
        """Take at least so many characters more, as far as there are."""
        text = [self._text[self._at :]]
        more = 0
        while not self._ended and more < least:
            piece = next(self._pieces, None)
            self._ended = piece is None
            try:
                text.append(self._decoder.decode(piece or b"", final=self._ended))
            except UnicodeDecodeError:
                raise InputError(f"{self._file}: not UTF-8 text.") from None
            more += len(text[-1])
        self._text, self._at = "".join(text), 0
