"""One run per output folder: a lock that dies with its owner and says who that is."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from pathlib import Path

from core.errors import LedgerError
from core.outputs import storage_error


class RunLock:
    """An exclusive `flock` on a file that names pid, host, start and command.

    The kernel drops the lock when the process ends, however it ends: a stale file is no lock.
    """

    def __init__(self, file: Path) -> None:
        """Take the lock.

        Raises:
            LedgerError: another process holds it; says which.
            StorageError: the file cannot be written.
        """
        try:
            self._stream = file.open("a+", encoding="utf-8")
        except OSError as error:
            raise storage_error(error, file) from None
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._stream.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):  # a file system without locks
                raise storage_error(error, file) from None
            owner = _read_owner(file)
            raise LedgerError(
                f"{file.parent} is in use by another run ({owner}). "
                "Wait for it, stop it, or choose another output folder."
            ) from None
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
        with contextlib.suppress(OSError):  # what could not be written, tried once more
            self._stream.close()


def _read_owner(file: Path) -> str:
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
        return f"pid {owner['pid']} on {owner['host']} since {owner['since']}: {owner['command']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its owner has not signed yet"
