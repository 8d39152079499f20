"""The text of a file, or of standard input, in whatever Unicode encoding it is.

UTF-8 and UTF-16, which spreadsheets and Windows' editors write, with or without a byte order mark;
UTF-32 with one. Lines end in line feeds afterwards.
"""

import codecs
import re
import shlex
import sys
from pathlib import Path
from typing import TextIO

from loguru import logger

from core.errors import InputError
from core.paths import as_text

MAX_FILE_BYTES = 1_000_000_000
STDIN = Path("-")
UTF8 = "utf-8-sig"
_MARKS = (  # UTF-32's first: that of UTF-16 is its beginning
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NOT_UTF8 = 'not UTF-8 text; save the file as UTF-8 (in a spreadsheet: "CSV UTF-8").'
_LOOKED_AT = 4096  # bytes of a file without a mark
_MOSTLY = 0.8  # of every second byte is zero in UTF-16, where letters are Latin ones
_NO_TEXT = (  # how files begin that are not text, and what to do about them
    (b"\x89PNG", "is a picture; --from-png draws it again"),
    (b"RIFF", "is a picture; --from-png draws it again"),
    (b"\xff\xd8\xff", "is a picture; --from-png draws it again"),
    (b"PK\x03\x04", "is a spreadsheet or an archive; save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old spreadsheet; save the table as CSV"),
    (b"%PDF", "is a PDF document; save its text as a text file"),
    (b"PAR1", "is a Parquet file; save the table as CSV"),
)


def read_content(path: Path, thing: str = "prompt") -> bytes:
    """The bytes of a file; of standard input for STDIN.

    Args:
        thing: what one line of it is called.

    Raises:
        InputError: it cannot be read, is larger than 1 GB, or is certainly no text.
    """
    try:
        content = _of_stdin(thing) if path == STDIN else _of_file(path, thing)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{shown_path(path)}: cannot be read: {reason}.") from None
    what = what_else(content)
    if what is not None:
        raise InputError(f"{shown_path(path)}: {what}.")
    return content


def what_else(content: bytes) -> str | None:
    """What a file is that is certainly no text, and what to do about it; None for any other."""
    return next((what for start, what in _NO_TEXT if content.startswith(start)), None)


def lines_of(path: Path) -> TextIO:
    """A file of UTF-8 text, to be read line by line: as `decoded` gives it, with surrogates."""
    return path.open(encoding=UTF8, errors="surrogateescape")


def shown_path(path: Path) -> str:
    """A path as messages say it."""
    return "standard input" if path == STDIN else str(path)


def _of_file(path: Path, thing: str) -> bytes:
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder; a file of {thing}s is needed (text, CSV, JSON, JSONL, YAML)."
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise _too_large(path)
    return path.read_bytes()


def _of_stdin(thing: str) -> bytes:
    if sys.stdin is None:
        raise InputError(f"standard input: is closed; give {thing}s through a pipe, or a file.")
    if sys.stdin.isatty():
        logger.info(f"Type one {thing} a line; Ctrl-D on a line of its own ends the list.")
    content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _too_large(STDIN)
    return content


def _too_large(path: Path) -> InputError:
    return InputError(f"{shown_path(path)}: larger than 1 GB; split it.")


def encoding_of(content: bytes) -> str:
    """The name of a text's encoding: UTF-8, unless its first bytes speak for another."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    head = content[:_LOOKED_AT]
    if len(head) >= 4 and b"\0" in head:
        for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            zeros, others = head[first::2], head[1 - first :: 2]
            if zeros.count(0) >= _MOSTLY * len(zeros) and not others.count(0):
                return encoding
    return UTF8


def decoded(content: bytes, errors: str = "strict") -> str:
    """Text with line feeds alone between its lines.

    Args:
        errors: as `bytes.decode` takes it.

    Raises:
        UnicodeDecodeError: it is not in the encoding that it seems to be in.
    """
    text = content.decode(encoding_of(content), errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def not_text(path: Path, error: UnicodeDecodeError) -> InputError:
    """The refusal of a file that is not in its encoding."""
    name = "UTF-16" if error.encoding.startswith("utf-16") else "UTF-8"
    name = "UTF-32" if error.encoding.startswith("utf-32") else name
    where = f"{shown_path(path)}: not {name} text (byte {error.start})"
    if name != "UTF-8" or path == STDIN:
        return InputError(f"{where}; save it as UTF-8.")
    usual = _usual_encoding(error.object, error.start)
    save = 'ave it as UTF-8 (in a spreadsheet: "CSV UTF-8")'
    if usual is None:
        return InputError(f"{where}; s{save}.")
    file = shlex.quote(as_text(path))
    return InputError(
        f"{where}; it looks like {usual}. S{save}, or convert it: "
        f"iconv -f {usual} -t UTF-8 {file} > another-file"
    )


def _usual_encoding(content: bytes, start: int) -> str | None:
    """Which of the encodings it may be in that programs without Unicode write most.

    A Chinese character has two bytes in GBK, so that bytes beyond ASCII mostly come in even numbers
    there, and in rows; letters with accents stand alone. None for another one, such as that of
    Cyrillic letters: converted from the wrong one, a file would be read, and be nonsense.

    Args:
        start: where the first bytes are that are no UTF-8; characters before them may be long ones.
    """
    while start and content[start - 1] >= 0x80:  # by chance, a part of GBK's may be UTF-8
        start -= 1
    looked_at = content[start : start + _LOOKED_AT]
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", looked_at)]
    odd = sum(length % 2 for length in runs)
    if max(runs, default=0) < 4:
        return "WINDOWS-1252"
    try:
        codecs.getincrementaldecoder("gb18030")().decode(looked_at)
    except UnicodeDecodeError:
        return None
    return "GBK" if 2 * odd < len(runs) or len(runs) == 1 else None
