"""Places of results: safe paths below one root, and publishing that is all or nothing."""

import contextlib
import errno
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from core.errors import InputError, StorageError
from core.fault_points import fault_point
from core.messages import MOST_PREVIEWS
from core.paths import MAX_NAME_BYTES, MAX_PATH_BYTES, as_text, on_disk, user_path
from core.tasks import Task
from core.validation import shown

# With these no later picture can be saved either; others concern one path.
FATAL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE}
WEBP = ".webp"
JPEG_SUFFIXES = (".jpg", ".jpeg")
LOSSY_SUFFIXES = (*JPEG_SUFFIXES, WEBP)  # of files that have a quality
JPEG_QUALITY = 95  # where nobody says another: what it loses is not seen
PICTURE_SUFFIXES = (".png", WEBP, *JPEG_SUFFIXES)
PARTIAL_PREFIX = ".partial-"  # hidden and without suffix: never mistaken for a picture
ANSWERS_PREFIX = ".answers-"
MOST_SEEN = 1024  # folders that are remembered: a daemon's jobs have one each
STATUS = "status.json"  # how the run stands; see `core.status.status_file`
REPLACED = ".replaced"  # the folder of replaced results; see `core.store.replaced`
GALLERY = ".gallery"  # the folder of what a page of the results needs beside it


@dataclass(frozen=True, slots=True)
class OutputPath:
    """A place for one picture or verdict.

    Attributes:
        shown: relative to the root where it lies below it; what records and metadata say.
        folder: the root, which relative ones lie below.
        key: equal for paths that are one file on some common file system (case, Unicode form).
    """

    shown: str
    folder: str
    key: str

    @property
    def path(self) -> str:
        """Where it really is; a `Path` costs ten times as much, and is asked for at every step."""
        return os.path.join(self.folder, on_disk(self.shown))

    @property
    def file(self) -> Path:
        """Where it really is."""
        return Path(self.path)


def partial_of(output: OutputPath, lease_id: str) -> str:
    """The file to which a worker writes the result of a lease, beside where it belongs."""
    return os.path.join(os.path.dirname(output.path), f"{PARTIAL_PREFIX}{lease_id}")


def answers_of(partial: str, task: Task) -> str:
    """The file in which a worker keeps the answers that it was given so far, where it has to ask.

    Args:
        partial: the unfinished file of any attempt at the task: it outlives the attempt.
    """
    name = hashlib.sha256(os.path.basename(str(task.output_path)).encode("utf-8", "replace"))
    return os.path.join(os.path.dirname(partial), f"{ANSWERS_PREFIX}{name.hexdigest()[:16]}")


def preview_of(partial: str, number: int) -> str:
    """The file of an attempt's preview, beside the `partial` file that it writes."""
    return f"{partial}-{number}"


def output_key(shown: str) -> str:
    """A key that is equal for names that are one file on some common file system."""
    return unicodedata.normalize("NFC", shown).casefold()


class OutputRoot:
    """The folder of a run. Confined, nothing is ever written outside it.

    Args:
        folder: the folder; made when first needed.
        confined: refuse paths that lead out of it. A task list from a file is always
            confined; Python code that gives its own paths need not be.
    """

    def __init__(self, folder: Path, confined: bool = True) -> None:
        # Without "..", as the paths below it are.
        self.folder = Path(os.path.abspath(user_path(folder, "output_dir")))
        self.confined = confined
        self._folder = str(self.folder)
        self._prefix = os.path.join(self._folder, "")
        self._seen_inside: set[str] = set()  # folders, by `place`; `partial` looks again

    def place(self, output_path: str, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> OutputPath:
        """Check `output_path` and say which file it means.

        Raises:
            InputError: leads outside, cannot be a file name, or ends in none of `suffixes`.
        """
        pure = PurePosixPath(_encodable(output_path))
        _check_name(output_path, pure, suffixes)
        if self.confined:
            self._check_confined(output_path, pure)
        path = os.path.normpath(os.path.join(self._folder, pure))
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise InputError(f"output_path: {shown(output_path)} is too long a path.")
        try:
            self._look(output_path, path)
        except OSError as error:
            reason = "a loop of symbolic links" if error.errno == errno.ELOOP else error.strerror
            raise InputError(f"output_path: {shown(output_path)}: {reason or error}.") from None
        name = as_text(path.removeprefix(self._prefix))
        name = output_path if name == output_path else name  # one text in place of two
        key = output_key(name)
        return OutputPath(name, self._folder, name if key == name else key)

    def _look(self, output_path: str, path: str) -> None:
        """Refuse a `path` that does not stay inside, where it has to, or is a folder."""
        if self.confined and (os.path.islink(path) or not self._is_inside(os.path.dirname(path))):
            raise InputError(
                f"output_path: {shown(output_path)} leads out of {self.folder} "
                "through a symbolic link."
            )
        if os.path.isdir(path):
            raise InputError(
                f"output_path: {shown(output_path)} is a folder; a file name is needed."
            )

    def _is_inside(self, folder: str) -> bool:
        if folder in self._seen_inside:
            return True
        if not self._lies_inside(folder):
            return False
        if len(self._seen_inside) >= MOST_SEEN:
            self._seen_inside.clear()
        self._seen_inside.add(folder)
        return True

    def _check_confined(self, output_path: str, pure: PurePosixPath) -> None:
        drive = len(output_path) > 1 and output_path[1] == ":"
        if "\\" in output_path or drive:
            raise InputError(
                f"output_path: {shown(output_path)} has a backslash or drive letter; "
                "use forward slashes."
            )
        if ".." in pure.parts:
            raise InputError(f"output_path: {shown(output_path)} leads outside with '..'.")
        if pure.is_absolute() and not pure.is_relative_to(self.folder):
            raise InputError(
                f"output_path: {shown(output_path)} is absolute; give a path below {self.folder}."
            )

    def _lies_inside(self, folder: str) -> bool:
        return f"{_real_path(folder)}/".startswith(self._real_prefix)

    @cached_property
    def _real_prefix(self) -> str:
        """The root with links resolved; looked up once, for it is not to change."""
        return os.path.join(_real_path(self.folder), "")

    def prepare(self, folder: str) -> None:
        """Make a folder for results, unless it is there.

        Raises:
            StorageError: it cannot be made, or has since come to lead outside.
        """
        self.check_inside(os.path.join(folder, "x"))
        if not os.path.isdir(folder):
            make_folder(Path(folder))

    def relative(self, file: str) -> str:
        """A file's path from the folder, as the record has it: the folder may be moved."""
        if file.startswith(self._prefix):
            return as_text(file.removeprefix(self._prefix))
        return as_text(os.path.relpath(file, self._folder))

    def check_inside(self, file: str | Path) -> None:
        """See that a file is written inside, if that is asked for.

        Raises:
            StorageError: its folder leads outside through a link.
        """
        try:
            outside = self.confined and not self._lies_inside(os.path.dirname(file))
        except OSError as error:
            raise storage_error(error, file) from None
        if outside:
            raise StorageError(f"{file} has come to lead out of {self.folder}.")

    def sweep(self, partial: str) -> None:
        """Remove an unfinished file, and its previews, that a dead run left, by its relative path.

        The path comes from a file that could have been tampered with: nothing else goes.
        """
        with contextlib.suppress(OSError, ValueError):  # what cannot be looked at stays
            file = Path(os.path.normpath(self.folder / on_disk(partial)))
            if file.name.startswith(PARTIAL_PREFIX) and self._lies_inside(os.path.dirname(file)):
                discard(file)
                discard_previews(str(file))


def _real_path(folder: str | Path) -> str:
    """Resolve links in a path, as far as it exists; OSError for a loop of them."""
    try:
        return os.path.realpath(folder, strict=True)
    except FileNotFoundError:
        return os.path.realpath(folder)


def _encodable(output_path: str) -> str:
    try:
        return on_disk(output_path)
    except UnicodeEncodeError:
        raise InputError(f"output_path: {shown(output_path)} is not valid text.") from None


def _check_name(output_path: str, pure: PurePosixPath, suffixes: Sequence[str]) -> None:
    if not pure.name or "\0" in output_path:
        raise InputError(f"output_path: {shown(output_path)} is not a file name.")
    longest = max(len(os.fsencode(part)) for part in pure.parts)
    if longest > MAX_NAME_BYTES:
        raise InputError(
            f"output_path: a name of {longest} bytes is too long; {MAX_NAME_BYTES} is the most."
        )
    if pure.name.startswith(PARTIAL_PREFIX):
        raise InputError(f"output_path: names may not begin with {PARTIAL_PREFIX!r}.")
    folders = {part.casefold() for part in pure.parts}
    if REPLACED in folders:
        raise InputError(f"output_path: {REPLACED!r} is kept for results that were replaced.")
    if pure.name.casefold() == STATUS:
        raise InputError(f"output_path: {STATUS!r} is kept for what tells how a run stands.")
    if GALLERY in folders:
        raise InputError(f"output_path: {GALLERY!r} is kept for the page of the results.")
    if pure.suffix.lower() not in suffixes:
        raise InputError(f"output_path: {shown(output_path)} must end in {' or '.join(suffixes)}.")


def publish(partial: str | Path, final: str | Path, size: int, sync: bool = True) -> None:
    """Give a finished picture its name. After a crash there is the whole picture or none.

    The worker has synced the file; the rename and the folder's sync make the name durable.

    Args:
        sync: otherwise `sync_names` has to follow.

    Raises:
        StorageError: the file is not as the worker left it, or the disk refuses.
    """
    try:
        found = os.stat(partial).st_size
        if found != size:
            raise StorageError(f"{partial}: {found} bytes where the worker wrote {size}.")
        _rename(partial, final, sync)
    except OSError as error:
        raise storage_error(error, final) from None


def sync_names(folder: str) -> None:
    """Make the names that results were given in a folder durable.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        sync_folder(folder)
    except OSError as error:
        raise storage_error(error, folder) from None


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it, unless they are there.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from None


def _rename(partial: str | Path, final: str | Path, sync: bool = True) -> None:
    fault_point("main.before-rename")
    os.replace(partial, final)
    fault_point("main.after-rename")
    if sync:
        sync_folder(os.path.dirname(final) or ".")


def sync_folder(folder: str | Path) -> None:
    """Make renames in `folder` durable; file systems that cannot sync folders are let be."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fault_point("main.before-fsync")
        os.fsync(handle)
        fault_point("main.after-fsync")
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


as_json = json.JSONEncoder(ensure_ascii=False).encode
"""A value as JSON text that people can read. `json.dumps` makes an encoder for each."""


def json_line(row: Mapping[str, Any]) -> bytes:
    """One line of a JSONL file, as the file has it."""
    return as_bytes(as_json(row) + "\n")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """The content of a JSONL file."""
    return "".join(as_json(row) + "\n" for row in rows)


def as_bytes(text: str) -> bytes:
    """Text as files have it; a path that is no UTF-8 becomes JSON's own escape."""
    return text.encode("utf-8", "backslashreplace")


def write_atomically(
    file: Path, content: str | bytes | memoryview | Iterable[bytes], sync: bool = True
) -> None:
    """Replace `file`, whole or not at all.

    Args:
        content: all of it, or pieces that are made as they are written.
        sync: so that it outlives a power cut, and not the process alone.

    Raises:
        StorageError: the disk refuses.
    """
    partial = file.with_name(f"{PARTIAL_PREFIX}{file.name}")
    try:
        with partial.open("wb") as stream:
            _write(stream, content)
            fault_point("main.mid-write", lambda: stream.truncate(stream.tell() // 2))
            if sync:
                os.fsync(stream.fileno())
        _rename(partial, file, sync)
    except OSError as error:
        discard(partial)
        raise storage_error(error, file) from None
    except BaseException:  # a signal before there is a run to end
        discard(partial)
        raise


def remove(file: Path) -> None:
    """Remove a finished file.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, file) from None


def append(file: Path, lines: str | Iterable[bytes], sync: bool = True) -> None:
    """Add whole lines to a file, or leave it as it is.

    Args:
        lines, sync: as in `write_atomically`.

    Raises:
        StorageError: the disk refuses.
    """
    size = None
    try:
        size = file.stat().st_size
        with file.open("ab") as stream:
            _write(stream, lines)
            if sync:
                os.fsync(stream.fileno())
    except OSError as error:
        if size is not None:
            with contextlib.suppress(OSError):
                os.truncate(file, size)
        raise storage_error(error, file) from None


def _write(stream: BinaryIO, content: str | bytes | memoryview | Iterable[bytes]) -> None:
    if isinstance(content, str):
        content = as_bytes(content)
    if isinstance(content, bytes | memoryview):
        stream.write(content)
    else:
        stream.writelines(content)
    stream.flush()


def discard(partial: str | Path) -> None:
    """Remove an unfinished file if it is there."""
    with contextlib.suppress(OSError):  # a dead disk keeps it; the next run sweeps again
        os.unlink(partial)


def discard_previews(partial: str, count: int = MOST_PREVIEWS) -> None:
    """Remove the previews of an attempt that are there."""
    for number in range(1, count + 1):
        discard(preview_of(partial, number))


def storage_error(error: OSError, path: str | Path) -> StorageError:
    """`error` in one line for the user."""
    return StorageError(f"{path}: {error.strerror or error}.", fatal=error.errno in FATAL_ERRNOS)
