"""A run in a notebook: one line that says how it stands, and a log without its smallest details."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from loguru import logger

from core.log_format import LOG_FORMAT
from core.status.progress_line import ProgressLine
from core.status.tracker import RunTracker
from core.status.words import sentence

DEFAULT_SINK = 0  # of loguru: all that is said, on standard error

_lock = threading.Lock()
_line: ProgressLine | None = None


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel: its output goes through ipykernel."""
    return type(sys.stdout).__module__.startswith("ipykernel")


def quieten_log() -> None:
    """Have the log leave out details and keep clear of the line, unless somebody has set it up."""
    try:
        logger.remove(DEFAULT_SINK)
    except ValueError:
        return
    logger.add(_write, level="INFO", format=LOG_FORMAT)


@contextmanager
def progress_line(tracker: RunTracker) -> Iterator[None]:
    """Show how a run stands in one line until this block ends; of several runs the first."""
    global _line
    quieten_log()
    line = ProgressLine(lambda: sentence(tracker.status()), _stream())
    with _lock:
        is_first = _line is None
        if is_first:
            _line = line
    if not is_first:
        yield
        return
    line.start()
    try:
        yield
    finally:
        line.stop()
        with _lock:
            _line = None


def _stream() -> TextIO:
    return sys.stdout if in_notebook() else sys.stderr


def _write(text: str) -> None:
    line, stream = _line, _stream()
    if line is not None:
        line.write_above(text)
    elif stream is not None:
        stream.write(text)
        stream.flush()
