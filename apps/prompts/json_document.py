"""A JSON document that holds a long list, read piece by piece: a list, or an object with one.

The list's elements are handed out one after the other; what stands around them is small.
"""

import json
from collections.abc import Iterator
from typing import Any, TextIO

from apps.prompts.json_entries import constant
from core.intake import spellings
from core.paths import is_text

PIECE = 1 << 20  # characters that are read at once
MOST = 4 * PIECE  # of one element, or of what stands around the list
_BLANK = " \t\n\r"  # as JSON has it
_DECODE = json.JSONDecoder(parse_constant=constant).raw_decode


class NotStreamed(Exception):
    """A file is not what can be read piece by piece: it is read as a whole."""


class JsonDocument:
    """Reads one document, once.

    Attributes:
        key: under which an object has the list; None for a list by itself.
        around: what else an object has, as far as it was read.

    Args:
        lists: keys under which the list may stand.
    """

    def __init__(self, stream: TextIO, lists: tuple[str, ...]) -> None:
        self._stream = stream
        self._lists = lists
        self._text = ""
        self._at = 0
        self.around: dict[str, Any] = {}
        self.key: str | None = None

    def elements(self) -> Iterator[Any]:
        """The elements of its list.

        Raises:
            NotStreamed: the document is damaged, or of another form.
        """
        if self._next() == "[":
            yield from self._list()
        elif self._next() == "{":
            yield from self._object()
        if self._next():
            raise NotStreamed

    def _object(self) -> Iterator[Any]:
        self._skip("{")
        while True:
            key = self._value()
            self._skip(":")
            if not isinstance(key, str) or key in self.around or key == self.key:
                raise NotStreamed
            if self._next() == "[" and spellings.plain(key) in self._lists:
                if self.key is not None:
                    raise NotStreamed
                self.key = key
                yield from self._list()
            else:
                self.around[key] = self._value()
            if self._next() == "}":
                self._skip("}")
                return
            self._skip(",")

    def _list(self) -> Iterator[Any]:
        self._skip("[")
        if self._next() == "]":
            self._skip("]")
            return
        while True:
            yield self._value()
            if self._next() == "]":
                self._skip("]")
                return
            self._skip(",")

    def _next(self) -> str:
        """The next character that is not blank; nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK:
                    return self._text[self._at]
                self._at += 1
            if not self._read_more():
                return ""

    def _skip(self, character: str) -> None:
        if self._next() != character:
            raise NotStreamed
        self._at += 1

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = _DECODE(self._text, self._at)
            except (ValueError, RecursionError):
                end = len(self._text)
            # A number goes on, perhaps, behind what has been read.
            if end < len(self._text):
                self._at = end
                return value
            if len(self._text) - self._at > MOST or not self._read_more():
                raise NotStreamed

    def _read_more(self) -> bool:
        piece = self._stream.read(PIECE)
        if not is_text(piece):
            raise NotStreamed
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)
