"""Long texts of a JSON file that stay in it, such as pictures in base64, until they are needed."""

import json
from pathlib import Path

from core.errors import InputError

SHOWN = 64  # characters with which a text stands for itself


class LongText(str):
    """The beginning of a text; the whole of it stands in its file.

    Attributes:
        file: the JSON file.
        start: its first byte there, behind its opening quote.
        length: bytes up to its closing quote.
    """

    file: Path
    start: int
    length: int

    def __new__(cls, beginning: str, file: Path, start: int, length: int) -> "LongText":
        text = super().__new__(cls, beginning[:SHOWN])
        text.file, text.start, text.length = file, start, length
        return text

    def content(self) -> bytes:
        """The whole text in UTF-8.

        Raises:
            InputError: the file cannot be read any more, or has changed since it was.
        """
        try:
            with self.file.open("rb") as stream:
                stream.seek(self.start)
                found = stream.read(self.length)
        except OSError as error:
            raise InputError(f"{self.file}: cannot be read: {error.strerror}.") from None
        if b"\\" not in found:
            return found
        try:
            text: str = json.loads(b'"' + found + b'"')
            return text.encode()
        except ValueError:
            raise InputError(f"{self.file}: changed while it was read; run again.") from None

    def whole(self) -> str:
        """The whole text.

        Raises:
            InputError: as of `content`, or it is not UTF-8.
        """
        try:
            return self.content().decode()
        except UnicodeDecodeError:
            raise InputError(f"{self.file}: not UTF-8 text.") from None


def holds_long_text(value: object) -> bool:
    """Whether a value of JSON is such a text, or has one inside."""
    if isinstance(value, list):
        return any(map(holds_long_text, value))
    if isinstance(value, dict):
        return any(map(holds_long_text, value.values()))
    return isinstance(value, LongText)
