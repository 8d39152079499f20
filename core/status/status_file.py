"""`status.json`: how the run of an output folder stands, for whoever reads it while it goes on."""

import json
import os
import threading
from contextlib import suppress
from pathlib import Path

from loguru import logger

from core.details import detail
from core.status.run_status import PROGRAM, RunStatus
from core.status.tracker import RunTracker
from core.store.outputs import PARTIAL_PREFIX, STATUS

EVERY = 1.0  # seconds between two writings


class StatusFile:
    """Replaces the file, whole, at most once a second, and only where something has changed.

    It is never synced: after a power cut it may say what was so a moment before. A disk that
    refuses it ends no run.

    Args:
        every: seconds between two looks at what has changed.

    Attributes:
        looks: how many there were.
    """

    def __init__(self, folder: Path, tracker: RunTracker, every: float = EVERY) -> None:
        self._file = folder / STATUS
        self._partial = folder / f"{PARTIAL_PREFIX}{STATUS}"
        self._tracker = tracker
        self._every = every
        self._written = -1  # the tracker's version
        self.looks = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Keep it up from now on; a file of somebody else's is left as it is."""
        if self._thread is not None:
            return
        if _is_foreign(self._file):
            logger.warning(
                f"{self._file} was not made by this program, and is left as it is: this run "
                "cannot be watched from outside."
            )
            return
        self._closing.clear()
        self._thread = threading.Thread(target=self._run, name="status file", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say for the last time how things stand."""
        if self._thread is not None:
            self._closing.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            self._write()
            if self._closing.wait(self._every):
                self._write()
                return

    def _write(self) -> None:
        self.looks += 1
        version = self._tracker.version
        if version == self._written:
            return
        text = json.dumps(self._tracker.status().as_json(), ensure_ascii=False)
        try:
            with open(self._partial, "wb") as stream:
                stream.write(text.encode("utf-8", "backslashreplace") + b"\n")
            os.replace(self._partial, self._file)
        except OSError as error:
            with suppress(OSError):
                os.unlink(self._partial)
            detail(f"{self._file}: {error.strerror or error}")
        self._written = version


def read_status(folder: Path) -> RunStatus | None:
    """What the file of an output folder says; None where there is none.

    Raises:
        ValueError: it cannot be read as one of this program's.
    """
    try:
        text = (folder / STATUS).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    return RunStatus.from_json(document)


def _is_foreign(file: Path) -> bool:
    """Whether somebody else's file would be replaced; an empty one is left by a power cut."""
    try:
        text = file.read_text("utf-8", errors="replace")
        if not text.strip():
            return False
        document = json.loads(text)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(document, dict) or document.get("program") != PROGRAM
