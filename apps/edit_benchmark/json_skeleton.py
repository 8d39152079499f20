"""The text of a JSON file without its long encoded strings, which are passed over as bytes.

A thousand pictures in base64 are a gigabyte in which nothing has to be understood but where each of
them begins and ends. Such a string has no quote and next to no escape, so the search for the next
quote finds its end at the speed of memory. Where a stretch without a quote is something else (a
description, a list of numbers, a string with quotes in it), it stays in the text as it is.
"""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.edit_benchmark.long_text import SHOWN, LongText
from core.errors import InputError

LEAST = 8192  # bytes from which on a string is left in the file; no row's own words are as long
_BUFFER = 2 << 20  # bytes; it grows where a string is longer than half of it
_MOST = 1 << 30  # bytes of one string
_QUOTE, _BACKSLASH = b'"', ord("\\")
# Behind the opening quote. No other text is like this: behind a closing one stands none of these.
_ENCODED = re.compile(rb'(?:data:[^"\\\s]{0,200}?,)?(?:[A-Za-z0-9+/_=-]|\\[nr/]){1024}')


class Skeleton:
    """A JSON file in pieces, with a mark in place of each long encoded string."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sign = f"\0{secrets.token_hex(8)}:"  # no file can have it in a text of its own
        self._long: list[LongText] = []

    def pieces(self) -> Iterator[bytes]:
        """The text, piece by piece.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            with self._file.open("rb") as stream:
                yield from self._pieces(stream)
        except OSError as error:
            raise InputError(f"{self._file}: cannot be read: {error.strerror}.") from None

    def _pieces(self, stream: Any) -> Iterator[bytes]:
        buffer = bytearray(_BUFFER)  # one for the whole file: fresh memory costs as much as reading
        size = place = 0  # how much of it is filled, and where it begins in the file
        given = at = 0  # up to where it was given out, and looked at
        quote = -1  # the last one before `at`; -1: unknown
        while True:
            kept = size - given
            larger = bytearray(2 * len(buffer)) if kept > len(buffer) // 2 else buffer
            memoryview(larger)[:kept] = memoryview(buffer)[given:size]
            buffer, place = larger, place + given
            at, quote, given = at - given, max(-1, quote - given), 0
            read = stream.readinto(memoryview(buffer)[kept:])
            if not read:
                break
            size = kept + read
            piece: list[bytes | bytearray] = []
            while at + LEAST <= size:
                last = buffer.rfind(_QUOTE, at, at + LEAST)
                if last >= 0:
                    quote, at = last, last + 1
                    continue
                end = buffer.find(_QUOTE, at + LEAST, size)
                begins = _begins(buffer, quote, size)
                if begins and end < 0:
                    if size - quote > _MOST:
                        raise InputError(
                            f"{self._file}: a text of more than {_MOST >> 30} GiB without an end."
                        )
                    break  # more of the file tells where it ends
                if begins and _ends(buffer, quote, end):
                    piece += [buffer[given : quote + 1], self._mark(buffer, place, quote + 1, end)]
                    given = end
                quote, at = (end, end + 1) if end >= 0 else (-1, size)
            kept_from = max(given, min(at, quote - 1 if quote >= 0 else at))
            piece.append(buffer[given:kept_from])
            given = kept_from
            yield b"".join(piece)
        yield bytes(buffer[:kept])

    def _mark(self, buffer: bytearray, place: int, start: int, end: int) -> bytes:
        beginning = buffer[start : start + SHOWN].decode("ascii", "replace")
        self._long.append(LongText(beginning, self._file, place + start, end - start))
        return f"\\u0000{self._sign[1:]}{len(self._long) - 1}".encode()

    def restored(self, value: Any) -> Any:
        """A decoded value, with its long texts in place of their marks."""
        if not self._long:
            return value
        if isinstance(value, str):
            is_mark = value.startswith(self._sign)
            return self._long[int(value.removeprefix(self._sign))] if is_mark else value
        if isinstance(value, list):
            return [self.restored(each) for each in value]
        if isinstance(value, dict):
            return {name: self.restored(each) for name, each in value.items()}
        return value


def _begins(buffer: bytearray, quote: int, size: int) -> bool:
    """Whether an encoded string begins at a quote."""
    if quote < 1 or buffer[quote - 1] == _BACKSLASH:
        return False
    return _ENCODED.match(buffer, quote + 1, size) is not None


def _ends(buffer: bytearray, quote: int, end: int) -> bool:
    """Whether the string that begins at one quote ends at the next one."""
    return buffer[end - 1] != _BACKSLASH and buffer.find(b"\n", quote, end) < 0
