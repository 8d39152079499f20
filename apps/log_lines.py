"""Where log lines go, and those about tasks that have ended."""

import sys
from contextlib import suppress
from typing import Any

from loguru import logger

from core.details import show_details
from core.events import TaskEnded
from core.log_format import LOG_FORMAT

_sinks = [0]  # of loguru, which starts with one


def set_up_logging(log_level: str) -> None:
    """Log lines to standard error, without a view."""
    log_to(sys.stderr, log_level)


def log_to(sink: Any, log_level: str, **options: Any) -> None:
    """Send the log to one place alone; never to none, for a signal's words may come any time."""
    show_details()
    new = logger.add(sink, level=log_level, format=LOG_FORMAT, **options)
    for old in _sinks:
        with suppress(ValueError):  # somebody else has removed it
            logger.remove(old)
    _sinks[:] = [new]


def line_of(event: TaskEnded, count: str) -> tuple[str, str]:
    """Level and text of the log's line about a task that has ended."""
    result = event.result
    where = f" on {result.worker}" if result.worker else ""
    if event.refused:
        return "ERROR", f"{count} {result.task_id}: {result.status}: {result.error}".strip()
    # Closed with the batch, or done by an earlier run: logged once for all.
    if result.worker is None or result.status == "skipped":
        return "DEBUG", f"{count} {result.task_id}: {result.status}".strip()
    if result.success:
        return "INFO", f"{count} {result.task_id}: {result.elapsed:.1f} s{where}".strip()
    return "ERROR", f"{count} {result.task_id}: {result.status}{where}: {result.error}".strip()
