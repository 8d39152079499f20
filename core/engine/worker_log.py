"""What workers have to say, as lines of the log: whose, about which task, and nothing twice."""

import re
import threading

from loguru import logger

from core.errors import one_line
from core.messages import LibraryWarning, Log, PromptCut

MOST_WARNINGS = 50  # different ones of libraries; those that follow are for --log-level DEBUG
MOST_CUTS = 10  # lines about prompts that were cut; the others are named together at the end
MOST_NAMES = 20  # tasks in the line that names them
# What differs when a library says the same again: addresses, numbers, ids.
_CHANGING = re.compile(r"0x[0-9a-fA-F]+|[0-9a-f]{8,}|\d+")


class WorkerLog:
    """The log of all workers of a run, whichever engine they work for. Safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()  # library warnings, but for what changes in them
        self._untold = 0  # library warnings beyond the limit
        self._cuts: set[tuple[str, str]] = set()  # task and text: a retry says it again
        self._shown_cuts: set[str] = set()
        self._unshown: list[str] = []  # tasks whose cut has no line of its own

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
        if self._unshown:
            names = [*dict.fromkeys(self._unshown)]
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            shown = one_line(", ".join(names[:MOST_NAMES]))
            logger.warning(
                f"Prompts of {len(names)} more tasks were longer than the model takes and were "
                f"cut: {shown}{more}. --log-level DEBUG shows where."
            )
        if self._untold:
            logger.warning(
                f"{self._untold} more warnings of libraries; --log-level DEBUG shows them."
            )
        self._unshown, self._untold = [], 0

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
        self._cuts.add((message.task, message.text))
        shows = message.text not in self._shown_cuts and len(self._shown_cuts) < MOST_CUTS
        if shows:
            self._shown_cuts.add(message.text)
        else:
            self._unshown.append(message.task)
        _log("WARNING" if shows else "DEBUG", worker, message.task, message.text)


def _log(level: str, worker: str, task: str, text: str) -> None:
    whose = f"{worker}, {task}" if task else worker
    logger.log(level, one_line(f"{whose}: {text}"))
