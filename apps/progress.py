"""What a run shows: see `apps.terminal_view` on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Protocol

from loguru import logger

from apps.log_lines import line_of, set_up_logging
from core.byte_sizes import shown_bytes
from core.events import (
    Event,
    ModelFetching,
    TaskEnded,
    TaskSpared,
    WorkerState,
)

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
