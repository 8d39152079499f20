"""Paths as users write them and as this system takes them: `~`, and the locale's encoding.

Python encodes file names in the locale's encoding. What that has no letters for is a file name in
UTF-8 here, so a run goes on under every locale, and the next one finds its files under UTF-8.
"""

import os
import sys
from pathlib import Path

from core.errors import InputError
from core.validation import shown

MAX_NAME_BYTES = 255  # of one path component, on every common Linux file system
MAX_PATH_BYTES = 4000  # PATH_MAX less room for the temporary name


def user_path(text: str | Path, what: str) -> Path:
    """The file or folder that a user means by `text`: the reading that exists, else the likeliest.

    Raises:
        InputError: no file system could have such a path; names `what`, the setting or field.
    """
    possible = readings(text, what)
    path = next((path for path in possible if os.path.lexists(path)), possible[0])
    # With its folder, a name that begins with `~` is nobody's home for whoever reads it next.
    return Path(_current(), path) if str(path).startswith("~") else path


def readings(text: str | Path, what: str) -> list[Path]:
    """What `text` may mean, the likeliest first.

    `~` and `~name` are home folders, where there are such, and names like any other.

    Raises:
        InputError: as `user_path`.
    """
    given = _possible(str(text), what)
    names = [given, _in_utf8(str(text))]  # which other programs wrote, whatever the locale here
    if given.startswith("~"):
        names.insert(0, os.path.expanduser(given))  # as it is, where there is no such home
    return [Path(name) for name in dict.fromkeys(names)]


def on_disk(name: str) -> str:
    """`name` as this system's calls take it.

    Raises:
        UnicodeEncodeError: it holds half of a surrogate pair, and is no text at all.
    """
    if name.isascii():
        return name
    return "/".join(map(_part_on_disk, name.split("/")))


def _part_on_disk(part: str) -> str:
    try:
        os.fsencode(part)
    except UnicodeEncodeError:
        return _in_utf8(part)
    return part


def _in_utf8(name: str) -> str:
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def is_text(text: str) -> bool:
    """Whether it can be UTF-8: a name, or a line, may have been bytes of another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(path: str | Path) -> str:
    """A path as text: the inverse of `on_disk`. Bytes that are no text stay surrogates."""
    name = str(path)
    if name.isascii():
        return name
    return "/".join(map(_part_as_text, name.split("/")))


def _part_as_text(part: str) -> str:
    try:
        text = os.fsencode(part).decode("utf-8")
        return text if _part_on_disk(text) == part else part
    except UnicodeError:
        return part


def printable(path: str | Path) -> str:
    """A path for metadata and tables, which hold nothing but text: other bytes are escaped."""
    return as_text(path).encode("utf-8", "backslashreplace").decode("utf-8")


# Native libraries take a path for UTF-8, whatever the locale, and a worker has to load models: it
# is started in Python's UTF-8 mode, unless options of the command line speak against it.
WORKERS_DIFFER = (
    sys.getfilesystemencoding() != "utf-8"
    and not sys.flags.ignore_environment
    and "utf8" not in sys._xoptions
)
UTF8_MODE = {"PYTHONUTF8": "1"} if WORKERS_DIFFER else {}


def for_worker(path: str) -> str:
    """A path of this process as a worker has to be given it."""
    if not WORKERS_DIFFER:
        return path
    return os.fsencode(on_disk(path)).decode("utf-8", "surrogateescape")


def _current() -> str:
    """The current folder, or another word for it if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return os.curdir


def _possible(text: str, what: str) -> str:
    if "\0" in text:
        raise InputError(f"{what}: {shown(text)} contains a NUL character.")
    try:
        path = on_disk(text)
    except UnicodeEncodeError:
        raise InputError(
            f"{what}: {shown(text)} contains half of a surrogate pair, which is not valid text."
        ) from None
    longest = max(len(os.fsencode(part)) for part in path.split("/"))
    if longest > MAX_NAME_BYTES:
        raise InputError(
            f"{what}: {shown(text)} has a name of {longest} bytes; {MAX_NAME_BYTES} is the most."
        )
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise InputError(f"{what}: {shown(text)} is too long a path.")
    return path
