"""A run as its output folder tells of it. Nothing is locked, opened for writing, or made."""

import socket
import time
from contextlib import suppress
from pathlib import Path

import psutil

from apps.watch.look import Look, look_of
from core.errors import InputError
from core.paths import as_text
from core.status.run_status import RunStatus
from core.status.status_file import read_status
from core.store.outputs import STATUS

SAME_MOMENT = 5.0  # seconds between two clocks: a process that began later is another one


class WatchedFolder:
    """The run of a folder, or the newest one of the folders in it.

    Raises:
        InputError: it is a file.
    """

    def __init__(self, folder: Path) -> None:
        if folder.is_file():
            raise InputError(f"{as_text(folder)} is a file; give the output folder of a run.")
        self._folder = folder

    def look(self) -> Look:
        """How it stands.

        Raises:
            InputError: what stands there is not this program's, or of a newer one.
        """
        folder = self._newest()
        place = as_text(folder)
        try:
            status = read_status(folder)
        except ValueError as error:
            raise InputError(f"{place}/{STATUS} cannot be read: {error}.") from None
        if status is None:
            there = folder.exists()
            title = "Nothing has run here yet." if there else "There is no such folder yet."
            return Look(place, "waiting", title=title)
        return look_of(status, place, is_alive(status), time.time())

    def _newest(self) -> Path:
        """The folder itself, or the one in it whose run last said something."""
        if (self._folder / STATUS).exists():
            return self._folder
        found: list[tuple[float, Path]] = []
        with suppress(OSError):
            for file in self._folder.glob(f"*/{STATUS}"):
                with suppress(OSError):
                    found.append((file.stat().st_mtime, file.parent))
        return max(found)[1] if found else self._folder


def is_alive(status: RunStatus) -> bool | None:
    """Whether the process of a run is; None where it is another machine's."""
    if status.host != socket.gethostname():
        return None
    try:
        process = psutil.Process(status.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.create_time() <= status.updated + SAME_MOMENT  # else its number was reused
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return None
