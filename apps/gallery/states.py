"""States of workers, noted by a command while it runs: the record does not know of them.

One line of JSON for each change, in the folder's `.gallery`; a torn or strange line is passed over.
"""

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from apps.gallery.places import HIDDEN, STATES

MOST = 100_000  # lines that are read: those of the newest changes


@dataclass(frozen=True)
class StateChange:
    """From this moment (Unix time) on a worker was in another state, in the engine's words."""

    at: float
    worker: str
    state: str


class States:
    """Notes changes; safe for several threads. A disk that refuses loses them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / HIDDEN / STATES
        self._lock = threading.Lock()

    def note(self, worker: str, state: str) -> None:
        """A worker is in another state now."""
        self.note_at(time.time(), worker, state)

    def note_at(self, at: float, worker: str, state: str) -> None:
        """A worker has been in another state since a moment, in Unix time."""
        line = json.dumps({"at": round(at, 3), "worker": worker, "state": state}) + "\n"
        with self._lock, suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(line)


def read_states(folder: Path) -> list[StateChange]:
    """The changes that were noted, in their order."""
    try:
        text = (folder / HIDDEN / STATES).read_text("utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.split("\n")[-MOST:]:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            row = json.loads(line)
            at, worker, state = float(row["at"]), row["worker"], row["state"]
            if isinstance(worker, str) and isinstance(state, str):
                found.append(StateChange(at, worker, state))
    return sorted(found, key=lambda change: change.at)
