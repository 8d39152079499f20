"""The input that an output folder belongs to: another one would replace its results.

A small hidden file beside the ledger, so that it outlives a damaged or lost one.
"""

import hashlib
import json
import os
import shlex
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from core.errors import InputError
from core.file_ends import add_ends
from core.names import bounded, cleaned
from core.paths import as_text, on_disk
from core.store.outputs import write_atomically

FILE_NAME = ".input.json"  # hidden: `datasets` passes over it
EDGE = 64 * 1024  # bytes at either end of a file of a data set; the middle is not read
MAX_RECORD_BYTES = 100_000


@dataclass(frozen=True)
class NoFile:
    """An input that is read from no file or folder, such as prompts of a command line.

    Attributes:
        words: what it is, for the user; it is the same input as long as they are the same.
    """

    words: str


@dataclass(frozen=True)
class InputRecord:
    """What a folder remembers of its input.

    Attributes:
        path: without links; the words of a `NoFile`, whose other fields are empty.
        relative: the same, seen from the output folder: both may be moved together.
        sha256: of the content, as the newest run found it.
        since: when this was written, for people.
    """

    path: str
    relative: str
    sha256: str
    since: str


class FolderInput:
    """Holds an output folder for one input, which may change in place or move.

    Args:
        folder: the output folder; it need not exist.
        source: the file or folder that is read, or what is read in place of one. A pipe is not
            remembered, for it has no name that means anything later, and is no folder's input
            that has one.
        take_over: replace whatever the folder belongs to.
        keeps: write down whose the folder is; otherwise `claim` does nothing.
    """

    def __init__(
        self, folder: Path, source: Path | NoFile, take_over: bool = False, keeps: bool = True
    ) -> None:
        self._folder = folder
        self._words = source.words if isinstance(source, NoFile) else None
        given = Path(source.words) if isinstance(source, NoFile) else source
        self._source = Path(os.path.realpath(given))
        self._take_over = take_over
        self._keeps = keeps
        self._lasting = self._words is not None or self._source.is_file() or self._source.is_dir()
        self._shown = self._source if self._lasting and self._words is None else given
        self._sha256: str | None = None
        self._claiming = threading.Lock()  # batches may be planned side by side

    def check(self) -> bool:
        """See whether the folder belongs to this input; nothing is written.

        Returns:
            False where the folder does not say whose it is.

        Raises:
            InputError: it belongs to another one.
        """
        known = self._read()
        if known is None:
            return False
        if not (self._take_over or (self._lasting and self._is_same(known))):
            raise self._refusal(f"holds the results of {known.path}", FILE_NAME)
        return True

    def refuse_as_foreign(self) -> None:
        """Say that a folder without a record holds results that are not of this input.

        Raises:
            InputError: unless the folder is to be taken over.
        """
        if not self._take_over:
            raise self._refusal("holds the results of another input, of other prompts")

    def claim(self) -> None:
        """Write down that the folder belongs to this input.

        A copy that lies beside the original is the same input only for as long as it is equal:
        the original stays the folder's own.

        Raises:
            StorageError: the disk refuses.
        """
        with self._claiming:
            self._claim()

    def _claim(self) -> None:
        if not (self._lasting and self._keeps):
            return
        known = self._read()
        content = self._content()
        if known is not None:
            if known.sha256 == content and known.path == self._path():
                return
            original = Path(on_disk(known.path))
            if not self._take_over and not self._is_at(known) and original.exists():
                return
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        record = InputRecord(self._path(), self._relative(), content, since)
        write_atomically(self._folder / FILE_NAME, json.dumps(asdict(record), indent=1) + "\n")

    def _read(self) -> InputRecord | None:
        file = self._folder / FILE_NAME
        try:
            if file.stat().st_size > MAX_RECORD_BYTES:
                return None
            data = json.loads(file.read_text("utf-8", "backslashreplace"))
            values = [data[f.name] for f in fields(InputRecord)]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if not all(isinstance(value, str) and "\0" not in value for value in values):
            return None
        return InputRecord(*values)

    def _is_same(self, known: InputRecord) -> bool:
        if self._words is not None or not known.sha256:  # one of them is no file
            return self._words == known.path
        return self._is_at(known) or known.sha256 == self._content()

    def _path(self) -> str:
        return as_text(self._source) if self._words is None else self._words

    def _is_at(self, known: InputRecord) -> bool:
        if self._path() == known.path or self._relative() == known.relative:
            return True
        try:
            return os.path.samefile(self._source, on_disk(known.path))
        except (OSError, ValueError):  # ValueError: written under another locale
            return False

    def _relative(self) -> str:
        if self._words is not None:
            return ""
        return as_text(os.path.relpath(self._source, os.path.realpath(self._folder)))

    def _content(self) -> str:
        if self._sha256 is None:
            self._sha256 = "" if self._words is not None else content_of(self._source)
        return self._sha256

    def _refusal(self, what: str, record: str | None = None) -> InputError:
        name = as_text(f"{self._shown.parent.name}_{self._shown.stem}")
        name = name if self._words is None else as_text(self._folder.name)
        name = bounded(cleaned(name, "-. ").strip().lstrip("._-"))  # as --name takes it
        if name == as_text(self._folder.name):
            name += "_2"
        same = f"if it is the same one, moved and changed, delete {record} there; " * bool(record)
        return InputError(
            f"{as_text(self._folder)} {what}, not of {as_text(self._shown)}. "
            f"Give this input a folder of its own: --name {shlex.quote(name)}, or another "
            f"--output-dir ({same}--overwrite replaces what has the same names)."
        )


def content_of(source: Path) -> str:
    """A hash of a file, or of the names, sizes and both ends of all files below a folder.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if source.is_file():
            with source.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        for place, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                file = Path(place, name)
                if file.is_file():
                    digest.update(os.fsencode(f"{file.relative_to(source)}\n"))
                    # One that cannot be read fails its own pair, and no other.
                    with suppress(OSError), file.open("rb") as stream:
                        size = os.fstat(stream.fileno()).st_size
                        digest.update(f"{size}\n".encode())
                        add_ends(digest, stream, size, EDGE)
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}.") from None
    return digest.hexdigest()
