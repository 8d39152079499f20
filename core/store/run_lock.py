"""One run per output folder: a lock that dies with its owner and says who that is."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
import weakref
from pathlib import Path
from typing import TextIO

from core.errors import LedgerError, StorageError
from core.store.outputs import storage_error

# What a file system answers that has no locks, or whose lock server is missing.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
LOOK_SECONDS = 0.02  # thousands of times as long as a look at the lock takes
WAY_OUT = (
    "Choose an output folder on a local disk, or have this one mounted with locks (Lustre: "
    "`-o flock`; NFS: version 4, or 3 with its lock service)."
)


class RunLock:
    """An exclusive `flock` on a file that names pid, host, start and command.

    The kernel drops the lock when the process ends, however it ends: a stale file is no lock. A
    fork of the process gets no part in it, or it would keep the lock for as long as it lives.
    """

    def __init__(self, file: Path) -> None:
        """Take the lock.

        Raises:
            LedgerError: another process holds it; says which.
            StorageError: the file cannot be written, or its file system has no locks.
        """
        self._pid = os.getpid()
        try:
            self._stream = file.open("a+", encoding="utf-8")
        except OSError as error:
            raise storage_error(error, file) from None
        try:
            _take(self._stream)
        except OSError as error:
            self._stream.close()
            if error.errno in NO_LOCKS:
                raise _without_locks(error, file) from None
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise storage_error(error, file) from None
            raise in_use(file.parent, read_owner(file)) from None
        _held.add(self)
        try:
            self._write_owner()
        except OSError as error:
            self.release()
            raise storage_error(error, file) from None

    def _write_owner(self) -> None:
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join(sys.argv)[:500],
        }
        self._stream.seek(0)
        self._stream.truncate()
        json.dump(owner, self._stream)
        self._stream.flush()

    def release(self) -> None:
        """Give the lock up; in a fork of its owner, only the fork's hold on the file."""
        with contextlib.suppress(OSError, ValueError):  # closed already
            if os.getpid() == self._pid:
                # To close alone would leave it to forks that Python knows nothing of.
                fcntl.flock(self._stream, fcntl.LOCK_UN)
        with contextlib.suppress(OSError):  # what could not be written, tried once more
            self._stream.close()


def _take(stream: TextIO) -> None:
    """Lock a file. Who only looks whether it is locked has it for a moment: it is tried again."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(LOOK_SECONDS)
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


_held: "weakref.WeakSet[RunLock]" = weakref.WeakSet()


def _let_go() -> None:
    """Let a fork of this program give up its share in every lock."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go)


def read_owner(file: Path) -> str:
    """Process, host, start and command of the run that has a lock, or the last one that had it."""
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
        return f"pid {owner['pid']} on {owner['host']} since {owner['since']}: {owner['command']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its owner has not signed yet"


def in_use(folder: Path, owner: str) -> LedgerError:
    """The error of a folder in which another run is at work."""
    return LedgerError(
        f"{folder} is in use by another run ({owner}). "
        "Wait for it, stop it, or choose another output folder."
    )


def _without_locks(error: OSError, file: Path) -> StorageError:
    return StorageError(
        f"{file.parent} lies on {_file_system(file)}, which has no file locks "
        f"({error.strerror}), so two runs in it could not be kept apart. {WAY_OUT}",
        fatal=True,
    )


def _file_system(file: Path) -> str:
    """Kind and place of the mount that holds `file`."""
    import psutil  # for this message alone

    real = os.path.realpath(file)
    try:
        mounts = [m for m in psutil.disk_partitions(all=True) if _holds(m.mountpoint, real)]
        mount = max(mounts, key=lambda m: len(m.mountpoint))
    except (OSError, ValueError, psutil.Error):
        return "a file system"
    return f"a file system of type {mount.fstype} (mounted at {mount.mountpoint})"


def _holds(folder: str, file: str) -> bool:
    return file.startswith(os.path.join(folder, ""))
