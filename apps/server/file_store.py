"""Files that callers keep here: durable, each its caller's own, within quotas, until they expire.

A file is there once its description is: that is written last and removed first, so that whatever
dies in between leaves a content without one, which the next start removes.
"""

import json
import os
import secrets
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from loguru import logger

from apps.server.errors import ApiError
from core.store.outputs import (
    discard,
    make_folder,
    remove,
    storage_error,
    sync_folder,
    write_atomically,
)

FOLDER = "files"
MAX_NAME = 200  # characters of a file's name
_ENDING = ".json"


@dataclass(frozen=True)
class StoredFile:
    """A file of a caller.

    Attributes:
        caller: id of the API key; nobody else sees it.
        bytes: its size.
        created: Unix time; so is `expires`, where it does.
        number: its place in the order in which files came.
    """

    id: str
    caller: str
    filename: str
    purpose: str
    bytes: int
    created: int
    expires: int | None
    number: int

    def expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now


class FileStore:
    """The files of all callers. Its methods wait for the disk: call them in threads.

    Args:
        folder: the daemon's; files lie below it.
        most_bytes: that one caller may keep.
        most_files: that one caller may keep.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, most_bytes: int, most_files: int) -> None:
        self.folder = folder.absolute() / FOLDER
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._lock = threading.Lock()
        self._files: dict[str, StoredFile] = {}
        self._used: dict[str, list[int]] = {}  # by caller: files and bytes, with those to come
        make_folder(self.folder)
        self._read()

    def path(self, file: StoredFile) -> Path:
        """Where the content lies."""
        return self.folder / file.id

    def find(self, id: str, caller: str) -> StoredFile | None:
        """A file of a caller, if there is one that has not expired."""
        found = self._files.get(id)
        mine = found is not None and found.caller == caller and not found.expired(time.time())
        return found if mine else None

    def of(self, caller: str) -> list[StoredFile]:
        """All files of a caller, in the order in which they came."""
        now = time.time()
        with self._lock:
            mine = [f for f in self._files.values() if f.caller == caller and not f.expired(now)]
        return sorted(mine, key=lambda file: file.number)

    def add(
        self,
        caller: str,
        filename: str,
        purpose: str,
        content: BinaryIO,
        size: int,
        seconds: int | None = None,
    ) -> StoredFile:
        """Keep a file; on return it survives whatever comes.

        Args:
            content: is read from where it stands.
            size: of the content, in bytes.
            seconds: after which it expires.

        Raises:
            ApiError: 429: the caller has no room left.
            StorageError: the disk refuses.
        """
        self._take_room(caller, size)
        id = new_file_id()
        file = self.folder / id
        try:
            with file.open("xb") as stream:
                shutil.copyfileobj(content, stream)
                stream.flush()
                os.fsync(stream.fileno())
            now = int(time.time())
            with self._lock:
                self._last += 1
                expires = None if seconds is None else now + seconds
                name = _safe(filename)
                made = StoredFile(id, caller, name, purpose, size, now, expires, self._last)
            write_atomically(self._description(id), json.dumps(asdict(made)))
        except OSError as error:
            discard(file)
            self._give_room(caller, size)
            raise storage_error(error, file) from None
        except BaseException:
            discard(file)
            self._give_room(caller, size)
            raise
        with self._lock:
            self._files[id] = made
        return made

    def adopt(
        self, id: str, caller: str, filename: str, purpose: str, content: Path, seconds: int
    ) -> StoredFile:
        """Keep what this daemon wrote for a caller, even one who has no room left.

        A second time changes nothing.

        Args:
            id: as `new_file_id` makes it.
            content: on the same disk; it stays where it is, and may then be removed.
            seconds: after which the file expires.

        Raises:
            StorageError: the disk refuses.
        """
        known = self._files.get(id)
        if known is not None:
            return known
        place = self.folder / id
        try:
            discard(place)
            same_file(content, place)
            size, now = place.stat().st_size, int(time.time())
            with self._lock:
                self._last += 1
                number = self._last
            made = StoredFile(id, caller, filename, purpose, size, now, now + seconds, number)
            write_atomically(self._description(id), json.dumps(asdict(made)))
        except OSError as error:
            discard(place)
            raise storage_error(error, place) from None
        with self._lock:
            files, used = self._used.get(caller, [0, 0])
            self._used[caller] = [files + 1, used + size]
            self._files[id] = made
        return made

    def delete(self, file: StoredFile) -> None:
        """Remove a file."""
        with self._lock:
            if self._files.pop(file.id, None) is None:
                return
        remove(self._description(file.id))
        discard(self.path(file))
        self._give_room(file.caller, file.bytes)

    def sweep(self) -> int:
        """Remove what has expired; returns how many."""
        now = time.time()
        with self._lock:
            expired = [file for file in self._files.values() if file.expired(now)]
        for file in expired:
            self.delete(file)
        return len(expired)

    def _description(self, id: str) -> Path:
        return self.folder / f"{id}{_ENDING}"

    def _take_room(self, caller: str, size: int) -> None:
        with self._lock:
            files, used = self._used.setdefault(caller, [0, 0])
            if files >= self._most_files or used + size > self._most_bytes:
                raise ApiError(
                    429,
                    f"You keep {files} files of {used / 1024**3:.3g} GiB here; {self._most_files} "
                    f"files and {self._most_bytes / 1024**3:g} GiB are the most. Delete some.",
                    "storage_quota_exceeded",
                    type="insufficient_quota",
                )
            self._used[caller] = [files + 1, used + size]

    def _give_room(self, caller: str, size: int) -> None:
        with self._lock:
            files, used = self._used[caller]
            self._used[caller] = [files - 1, used - size]
            if files == 1:
                del self._used[caller]

    def _read(self) -> None:
        self._last = 0
        for place in self.folder.iterdir():
            if place.suffix != _ENDING:
                continue
            try:
                file = StoredFile(**json.loads(place.read_bytes()))
                if file.id != place.stem or self.path(file).stat().st_size != file.bytes:
                    raise ValueError
            except (OSError, ValueError, TypeError) as error:
                logger.warning(f"{place} is passed over: it describes no file ({error}).")
                continue
            self._files[file.id] = file
            files, used = self._used.get(file.caller, [0, 0])
            self._used[file.caller] = [files + 1, used + file.bytes]
            self._last = max(self._last, file.number)
        for place in self.folder.iterdir():
            if place.name not in self._files and place.suffix != _ENDING:
                discard(place)
        with suppress(OSError):
            sync_folder(self.folder)


def same_file(source: Path, place: Path) -> None:
    """Have a durable file at `place` with the content of `source`: the same, where disks can.

    Raises:
        OSError: the disk refuses.
    """
    try:
        os.link(source, place)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with source.open("rb") as content, place.open("xb") as stream:
            shutil.copyfileobj(content, stream)
            stream.flush()
            os.fsync(stream.fileno())


def new_file_id() -> str:
    """A name that nobody can guess."""
    return f"file-{secrets.token_hex(12)}"


def _safe(filename: str) -> str:
    """The last part of a name, printable and short; callers alone see it, and no disk."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:MAX_NAME] or "file"
