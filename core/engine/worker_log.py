"""What workers have to say, as lines of the log: whose, about which task, and nothing twice."""

import re
import threading
from collections import deque

from loguru import logger

from core.details import log_line
from core.errors import one_line
from core.messages import LibraryWarning, Log, PromptCut

MOST_WARNINGS = 50  # different ones of libraries; those that follow are for --log-level DEBUG
MOST_CUTS = 10  # lines about prompts that were cut; the others are named together at the end
MOST_NAMES = 20  # tasks in the line that names them
MOST_REMEMBERED = 1000  # cuts, as a retry comes soon; a daemon meets more than it has room for
# What differs when a library says the same again: addresses, numbers, ids.
_CHANGING = re.compile(r"0x[0-9a-fA-F]+|[0-9a-f]{8,}|\d+")


class WorkerLog:
    """The log of all workers of a run, whichever engine they work for. Safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()  # library warnings, but for what changes in them
        self._untold = 0  # library warnings beyond the limit
        # Task and text of the newest: a retry says it again.
        self._cuts: deque[tuple[str, str]] = deque(maxlen=MOST_REMEMBERED)
        self._shown_cuts: set[str] = set()
        # Tasks whose cut has no line of its own: the newest, the first, and how many there were.
        self._unshown: deque[str] = deque(maxlen=MOST_REMEMBERED)
        self._named: list[str] = []
        self._unshown_count = 0

    def write(self, worker: str, message: Log | LibraryWarning | PromptCut) -> None:
        with self._lock:
            match message:
                case Log():
                    _log(message.level, worker, message.task, message.text)
                case LibraryWarning():
                    self._library(worker, message)
                case PromptCut():
                    self._cut(worker, message)

    def close(self) -> None:
        """Say what was held back, once."""
        if count := self._unshown_count:
            more = f" and {count - MOST_NAMES} more" if count > MOST_NAMES else ""
            shown = one_line(", ".join(self._named))
            logger.warning(
                f"Prompts of {count} more tasks were longer than the model takes and were "
                f"cut: {shown}{more}. --log-level DEBUG shows where."
            )
        if self._untold:
            logger.warning(
                f"{self._untold} more warnings of libraries; --log-level DEBUG shows them."
            )
        self._unshown.clear()
        self._named.clear()
        self._unshown_count = self._untold = 0

    def _library(self, worker: str, message: LibraryWarning) -> None:
        kind = _CHANGING.sub("#", message.text)
        shows = message.level != "DEBUG" and kind not in self._said
        if shows and len(self._said) >= MOST_WARNINGS:
            self._untold += 1
            shows = False
        if not shows:
            _log("DEBUG", worker, message.task, message.text)
            return
        self._said.add(kind)
        _log(message.level, worker, message.task, f"{message.text} (shown once)")

    def _cut(self, worker: str, message: PromptCut) -> None:
        if (message.task, message.text) in self._cuts:
            return
        self._cuts.append((message.task, message.text))
        shows = message.text not in self._shown_cuts and len(self._shown_cuts) < MOST_CUTS
        if shows:
            self._shown_cuts.add(message.text)
        elif message.task not in self._unshown:
            self._unshown.append(message.task)
            self._unshown_count += 1
            if len(self._named) < MOST_NAMES:
                self._named.append(message.task)
        _log("WARNING" if shows else "DEBUG", worker, message.task, message.text)


def _log(level: str, worker: str, task: str, text: str) -> None:
    whose = f"{worker}, {task}" if task else worker
    log_line(level, one_line(f"{whose}: {text}"))
