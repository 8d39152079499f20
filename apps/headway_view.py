"""What a command shows while it looks at many inputs, before its run begins.

On a terminal one line that is drawn over again, elsewhere and with `--plain` a log line now and
then, with `--quiet` nothing. A look that is soon over is not spoken of.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger

from apps.log_lines import log_to, set_up_logging
from apps.progress import Mode
from core.headway import Headway
from core.status.progress_line import ProgressLine
from core.status.words import duration

SILENT = 1.0  # seconds without a word on a terminal
LOG_EVERY = 10.0  # seconds between two lines of the log


@contextmanager
def headway_shown(headway: Headway, mode: Mode, log_level: str, noun: str) -> Iterator[None]:
    """Show how far a look has come until this block ends, and leave nothing of it on a terminal.

    Args:
        noun: what the inputs are, in the plural.
    """
    if mode == "quiet":
        yield
    elif mode == "auto" and sys.stderr.isatty():
        with _line(headway, log_level, noun):
            yield
    else:
        with _logged(headway, noun):
            yield


@contextmanager
def _line(headway: Headway, log_level: str, noun: str) -> Iterator[None]:
    began = time.monotonic()

    def words() -> str:
        seconds = time.monotonic() - began
        told = _words(headway, noun)
        return f"{told}, {duration(seconds)}" if told and seconds >= SILENT else ""

    line = ProgressLine(words, sys.stderr, stays=False)
    log_to(line.write_above, log_level, colorize=True)
    line.start()
    try:
        yield
    finally:
        line.stop()
        set_up_logging(log_level)


@contextmanager
def _logged(headway: Headway, noun: str) -> Iterator[None]:
    over = threading.Event()

    def tell() -> None:
        while not over.wait(LOG_EVERY):
            if told := _words(headway, noun):
                logger.info(f"{told[0].upper()}{told[1:]}.")

    teller = threading.Thread(target=tell, name="headway", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _words(headway: Headway, noun: str) -> str:
    look = headway.look
    if look is None:
        return ""
    return f"{look} {noun}" if look.total else str(look)
