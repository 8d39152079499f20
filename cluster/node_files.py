"""Files of a node that does not see main's: a cache of what came, and results on their way back."""

import os
import platform
import shutil
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.file_hashes import Kind, hash_of
from cluster.probes import answer_to

COMING = ".coming-"  # begins the name of an entry that is not complete
SPOOL = "on-their-way"  # the folder of results that go back to main
FREED_AT_ONCE = 0.05  # of the cache, where it is full: to look at all of it takes a while
COUNTED_AGAIN = 600.0  # seconds after which others may have brought much into it
STILL_USED = 600.0  # seconds after its last use in which nothing leaves the cache


@dataclass(frozen=True)
class Wanted:
    """Something that a worker has to find on its node.

    Attributes:
        key: hash of its content, as `hash_of` its kind.
    """

    kind: Kind
    path: str
    key: str


class NodeFiles:
    """Finds and keeps files on one node.

    Args:
        folder: of the cache; those who share it do each other no harm.
        limit: bytes that it may hold.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()  # guards the two that follow
        self._held: float | None = None  # bytes that it held, with what came since
        self._counted_at = 0.0  # monotonic time
        # Of this machine: others may share the folder, as where it lies in a home on NFS.
        self._spool = folder / SPOOL / platform.node() / str(os.getpid())

    def find(self, wanted: Wanted) -> str | None:
        """Where it is: at its own path, if the same lies there, or in the cache; else None."""
        with suppress(OSError):
            if hash_of(wanted.kind, wanted.path) == wanted.key:
                return wanted.path
        place = self._place(wanted)
        if not place.exists():
            return None
        with suppress(OSError):
            os.utime(place.parent)  # used just now
        return str(place)

    def begin(self, coming: str, size: int) -> None:
        """Make room for something of so many bytes, which comes under a name of its own.

        To call this, or what follows, a second time does no harm.
        """
        self._make_room(size)
        self._coming(coming).mkdir(parents=True, exist_ok=True)

    def receive(self, coming: str, name: str, offset: int, data: bytes) -> None:
        """Take bytes of one of its files, named relative to the folder that it lies in."""
        file = self._coming(coming) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "wb") as stream:
            stream.seek(offset)
            stream.write(data)

    def finish(self, coming: str, wanted: Wanted) -> str:
        """Take it into the cache; returns where it is.

        Raises:
            OSError: it is not what was wanted, as where it changed on its way.
        """
        folder, place = self._coming(coming), self._place(wanted)
        if not folder.exists() and place.exists():
            return str(place)
        if hash_of(wanted.kind, str(folder / place.name)) != wanted.key:
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(f"{wanted.path} changed on its way to the node")
        for file in folder.rglob("*"):
            if file.is_file():
                _sync(file)
        try:
            folder.rename(place.parent)
        except OSError:  # another agent on this machine was faster
            shutil.rmtree(folder, ignore_errors=True)
        return str(place)

    def sees(self, path: str, word: str) -> bool:
        """Whether a file of main's is seen here, and main sees one that is written beside it."""
        try:
            if Path(path).read_text("utf-8") != word:
                return False
            answer_to(path).write_text(word, "utf-8")
        except (OSError, UnicodeDecodeError):
            return False
        return True

    def make_spool(self) -> str:
        """Make the folder of results, without what this machine's dead agents left; returns it."""
        for folder in self._spool.parent.glob("*"):
            if not Path("/proc", folder.name).exists():
                shutil.rmtree(folder, ignore_errors=True)
        self._spool.mkdir(parents=True, exist_ok=True)
        return str(self._spool)

    def keep_spool(self) -> None:
        """Have the folder of results, also where somebody has cleared the cache meanwhile."""
        with suppress(OSError):  # workers say what that means for their results
            self._spool.mkdir(parents=True, exist_ok=True)

    def take(self, path: str) -> bytes:
        """
        Raises:
            OSError: it cannot be read.
        """
        return Path(path).read_bytes()

    def drop(self, paths: Iterable[str]) -> None:
        """Remove results that are with main, or that nobody wants."""
        for path in paths:
            with suppress(OSError):
                os.unlink(path)

    def close(self) -> None:
        """Remove all results."""
        shutil.rmtree(self._spool, ignore_errors=True)

    def _coming(self, coming: str) -> Path:
        return self._folder / f"{COMING}{coming}"

    def _place(self, wanted: Wanted) -> Path:
        return self._folder / wanted.key / Path(wanted.path).name

    def _make_room(self, size: int) -> None:
        with self._lock:
            is_old = time.monotonic() - self._counted_at > COUNTED_AGAIN
            if self._held is None or is_old or self._held + size > self._limit:
                self._held = self._count_and_clear(size)
                self._counted_at = time.monotonic()
            self._held += size

    def _count_and_clear(self, size: int) -> float:
        """Let those leave that were not used for longest, if there is no room; returns the rest."""
        entries = []
        for folder in self._folder.glob("*"):
            if folder.is_dir() and folder.name != SPOOL:
                with suppress(OSError):
                    entries.append((folder.stat().st_mtime, folder, _size_of(folder)))
        held = sum(size for _, _, size in entries)
        if held + size <= self._limit:
            return held
        for used, folder, its_size in sorted(entries):
            is_enough = held + size <= self._limit * (1 - FREED_AT_ONCE)
            if is_enough or time.time() - used < STILL_USED:
                break
            shutil.rmtree(folder, ignore_errors=True)
            held -= its_size
        return held


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
