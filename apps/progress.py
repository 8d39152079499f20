"""What a command shows of a run, in the way that was asked for.

On a terminal a bar for each kind of task and a line for each worker (`apps.terminal_view`);
elsewhere, and with `--plain`, a log line for each result; with `--quiet` nothing but warnings; with
`--json` events on standard output (`apps.json_events`); under a notebook's `!` one line that is
drawn over again.
"""

import os
import sys
import time
from types import TracebackType
from typing import Literal, Protocol, Self

from loguru import logger

from apps.log_lines import line_of, log_to, set_up_logging
from core.byte_sizes import shown_bytes
from core.events import Event, ModelFetching, TaskEnded, WorkerState
from core.status.progress_line import ProgressLine
from core.status.tracker import RunTracker
from core.status.words import sentence
from core.tasks import Result

Mode = Literal["auto", "plain", "quiet", "json"]

# A line about a download follows the one before after so many hundredths and seconds, or so long.
DOWNLOAD_STEP, DOWNLOAD_PAUSE, DOWNLOAD_SILENCE = 10, 5.0, 60.0
SUMMED_UP = 60.0  # seconds between two lines that say how the whole run stands
NOTEBOOK = "JPY_PARENT_PID"  # set by Jupyter for its kernels, and for what they start


class View(Protocol):
    """Shows events; safe to call from any thread. All but `show` may be left as it is here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def show(self, event: Event) -> None:
        """Something happened, and the tracker knows of it."""

    def settled(self, result: Result, kind: str) -> None:
        """A result was known before anything ran."""
        return None


def create_view(tracker: RunTracker, mode: Mode, log_level: str) -> View:
    """The view that was asked for, and loguru set up to write through it.

    Args:
        tracker: how the run stands.
    """
    if mode == "json":
        from apps.json_events import JsonView

        set_up_logging(log_level)
        return JsonView(tracker)
    if mode == "quiet":
        return QuietView(log_level)
    if mode == "auto" and sys.stderr.isatty():
        if os.environ.get(NOTEBOOK) or os.environ.get("TERM") == "dumb":
            return OneLineView(tracker, log_level)
        from apps.terminal_view import TerminalView  # what draws bars takes a while to import

        return TerminalView(tracker, log_level)
    return LineView(tracker, log_level)


class LineView(View):
    """A log line for each result, and one a minute for the whole run."""

    def __init__(self, tracker: RunTracker, log_level: str) -> None:
        self._tracker = tracker
        self._fetching: dict[str, tuple[float, int]] = {}  # by model: when it had its line, and %
        self._summed_up = time.monotonic()
        set_up_logging(log_level)

    def show(self, event: Event) -> None:
        match event:
            case TaskEnded():
                ended, total = self._tracker.counts()
                logger.log(*line_of(event, f"[{ended}/{total}]"))
                self._sum_up()
            case WorkerState(worker, state):
                logger.debug(f"{worker}: {state}")
            case ModelFetching():
                self._tell_fetching(event)

    def _sum_up(self) -> None:
        now = time.monotonic()
        if now - self._summed_up >= SUMMED_UP:
            self._summed_up = now
            logger.info(sentence(self._tracker.status()))

    def _tell_fetching(self, event: ModelFetching) -> None:
        now, percent = time.monotonic(), 100 * event.done // event.total
        when, before = self._fetching.setdefault(event.model, (now, percent))
        got_on = percent >= before + DOWNLOAD_STEP and now >= when + DOWNLOAD_PAUSE
        if got_on or now >= when + DOWNLOAD_SILENCE:
            self._fetching[event.model] = (now, percent)
            done, total = shown_bytes(event.done), shown_bytes(event.total)
            logger.info(f"{event.model}: {done} of {total} ({percent} %)")


class QuietView(View):
    """Failures, and nothing else."""

    def __init__(self, log_level: str) -> None:
        set_up_logging(log_level)

    def show(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and not event.result.success:
            logger.log(*line_of(event, ""))


class OneLineView(View):
    """One line that is drawn over again, for notebooks and terminals that can do no more."""

    def __init__(self, tracker: RunTracker, log_level: str) -> None:
        self._line = ProgressLine(lambda: sentence(tracker.status()), sys.stderr)
        log_to(self._line.write_above, log_level)

    def __enter__(self) -> Self:
        self._line.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.stop()

    def show(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and not event.result.success:
            logger.log(*line_of(event, ""))
