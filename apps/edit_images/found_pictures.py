"""Pictures that files, folders and patterns stand for, in the order in which people count."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.prompts.forms import ending_says
from apps.prompts.text import STDIN
from core.errors import InputError
from core.paths import as_text, user_path
from core.validation import shown, shown_path

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".j2k", ".jpf",
    ".avif", ".heic", ".heif",
)  # fmt: skip
"""Of files in folders that are taken for pictures; a file that is named may have any other."""
TABLE_ENDINGS = (".txt", ".text")  # beside those of `apps.prompts.forms`
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class FoundPicture:
    """A picture file.

    Attributes:
        file: absolute.
        name: what it is called below the folder that was named, without its ending.
    """

    file: Path
    name: str


@dataclass(frozen=True)
class FoundTable:
    """A file that lists pictures; STDIN is standard input."""

    file: Path


def find_pictures(
    paths: Sequence[str | Path], left_out: Path | None = None
) -> Iterator[FoundPicture | FoundTable]:
    """Pictures and lists of pictures, in the order in which they are named.

    Folders are searched through with all folders in them, in natural order (2 before 10). Hidden
    files and folders are left out there, those of this program among them.

    Args:
        left_out: a folder whose pictures are left out where it lies in a folder that is named: a
            run must not edit what it has made.

    Raises:
        InputError: there is no such file, or nothing fits.
    """
    for given in paths:
        if str(given) == str(STDIN):
            yield FoundTable(STDIN)
            continue
        path = user_path(given, "PICTURES")
        if path.is_dir():
            yield from _in_folder(path, left_out)
        elif path.is_file():
            yield _one(path)
        elif glob.has_magic(str(path)):
            yield from _fitting(path, left_out)
        else:
            raise InputError(
                f"PICTURES: {shown_path(str(given))}: there is no such file or folder."
            )


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts numbers within names by their value, whatever the case of letters."""
    parts = _DIGITS.split(text.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts] + [(-2, text)]


def _one(file: Path) -> FoundPicture | FoundTable:
    ending = file.suffix.lower()
    if ending_says(ending) or ending in TABLE_ENDINGS:
        return FoundTable(file)
    return FoundPicture(Path(os.path.abspath(file)), as_text(file.stem))


def _in_folder(folder: Path, left_out: Path | None) -> Iterator[FoundPicture]:
    files = sorted(_files_below(folder, left_out), key=lambda file: natural(str(file)))
    if not files:
        raise InputError(f"{folder}: holds no pictures ({', '.join(ENDINGS)}).")
    for file in files:
        name = as_text(file.relative_to(folder).with_suffix("").as_posix())
        yield FoundPicture(Path(os.path.abspath(file)), name)


def _files_below(folder: Path, left_out: Path | None) -> Iterator[Path]:
    named = os.path.realpath(folder)
    own = None if left_out is None else os.path.realpath(left_out)
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and (own is None or own == named or os.path.realpath(os.path.join(place, name)) != own)
        ]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(ENDINGS):
                yield Path(place, name)


def _fitting(pattern: Path, left_out: Path | None) -> Iterator[FoundPicture]:
    found = False
    for text in sorted(glob.glob(str(pattern), recursive=True), key=natural):
        path = Path(text)
        if path.is_file() and text.lower().endswith(ENDINGS):
            found = True
            yield FoundPicture(Path(os.path.abspath(path)), as_text(path.stem))
        elif path.is_dir() and any(_files_below(path, left_out)):
            found = True
            yield from _in_folder(path, left_out)
    if not found:
        raise InputError(f"PICTURES: no picture fits {shown(str(pattern))}.")
