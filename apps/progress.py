"""What a run shows: see `apps.terminal_view` on a terminal, plain lines elsewhere."""

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from loguru import logger

from core.byte_sizes import shown_bytes
from core.events import (
    Event,
    ModelFetching,
    TaskEnded,
    TaskSpared,
    WorkerState,
)

LOG_FORMAT = "<green>{time:HH:mm:ss}</green> <level>{level: <7}</level> {message}"
_sinks = [0]  # of loguru, which starts with one
# A line about a download follows the one before after so many hundredths and seconds, or so long.
DOWNLOAD_STEP, DOWNLOAD_PAUSE, DOWNLOAD_SILENCE = 10, 5.0, 60.0


class View(Protocol):
    """Shows events; safe to call from any thread."""

    def __enter__(self) -> "View": ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def show(self, event: Event) -> None: ...


def create_view(total: int, workers: list[str], log_level: str) -> View:
    """The view for this standard error, and loguru set up to write through it."""
    if sys.stderr.isatty():
        from apps.terminal_view import TerminalView  # what draws bars takes a while to import

        return TerminalView(total, workers, log_level)
    return LineView(total, log_level)


def set_up_logging(log_level: str) -> None:
    """Log lines to standard error, without a view."""
    log_to(sys.stderr, log_level)


def log_to(sink: Any, log_level: str, **options: Any) -> None:
    """Send the log to one place alone; never to none, for a signal's words may come any time."""
    new = logger.add(sink, level=log_level, format=LOG_FORMAT, **options)
    for old in _sinks:
        with suppress(ValueError):  # somebody else has removed it
            logger.remove(old)
    _sinks[:] = [new]


class LineView:
    """A log line per finished picture."""

    def __init__(self, total: int, log_level: str) -> None:
        self._total = total
        self._ended = 0
        self._fetching: dict[str, tuple[float, int]] = {}  # by model: when it had its line, and %
        set_up_logging(log_level)

    def __enter__(self) -> "LineView":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: Event) -> None:
        match event:
            case TaskEnded():
                self._ended += 1
                logger.log(*line_of(event, f"[{self._ended}/{self._total}]"))
            case TaskSpared():
                self._total -= 1
            case WorkerState(worker, state):
                logger.debug(f"{worker}: {state}")
            case ModelFetching():
                self._tell_fetching(event)

    def _tell_fetching(self, event: ModelFetching) -> None:
        now, percent = time.monotonic(), 100 * event.done // event.total
        when, before = self._fetching.setdefault(event.model, (now, percent))
        got_on = percent >= before + DOWNLOAD_STEP and now >= when + DOWNLOAD_PAUSE
        if got_on or now >= when + DOWNLOAD_SILENCE:
            self._fetching[event.model] = (now, percent)
            done, total = shown_bytes(event.done), shown_bytes(event.total)
            logger.info(f"{event.model}: {done} of {total} ({percent} %)")


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
