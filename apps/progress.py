"""What a run shows: a bar and a line per worker on a terminal, plain lines elsewhere."""

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from loguru import logger
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from core.byte_sizes import shown_bytes
from core.events import (
    Event,
    ModelFetching,
    TaskEnded,
    TaskProgress,
    TaskSpared,
    TaskStarted,
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
        return TerminalView(total, workers, log_level)
    return LineView(total, log_level)


def set_up_logging(log_level: str) -> None:
    """Log lines to standard error, without a view."""
    _log_to(sys.stderr, log_level)


def _log_to(sink: Any, log_level: str, **options: Any) -> None:
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
                logger.log(*_line(event, f"[{self._ended}/{self._total}]"))
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


class _TimeRemaining(TimeRemainingColumn):
    """Time remaining of the batch and of downloads; a worker's share has no end of its own."""

    def render(self, task: Task) -> Text:
        has_end = task.id == 0 or task.fields.get("is_download")
        return super().render(task) if has_end else Text("")


class _Count(MofNCompleteColumn):
    """Count of pictures, or of a download's bytes."""

    def render(self, task: Task) -> Text:
        if not task.fields.get("is_download"):
            return super().render(task)
        return Text(f"{shown_bytes(task.completed)}/{shown_bytes(task.total or 0)}")


class TerminalView:
    """One bar for the batch and one line per worker; log lines scroll above them."""

    def __init__(self, total: int, workers: list[str], log_level: str) -> None:
        self._total = total
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Count(),
            _TimeRemaining(),
            TextColumn("{task.fields[state]}"),
            console=self._console,
        )
        self._batch = self._progress.add_task("pictures", total=total, state="")
        # A worker's bar is its share of the batch.
        self._lines = {w: self._progress.add_task(f"  {w}", total=total, state="") for w in workers}
        # By worker: the task that it was given last, and the one whose steps its line shows.
        self._newest: dict[str, str] = {}
        self._stepping: dict[str, str] = {}
        self._downloads: dict[str, TaskID] = {}  # by model
        self._failed = 0
        _log_to(self._write, log_level, colorize=True)

    def _write(self, line: str) -> None:
        self._console.print(Text.from_ansi(line.rstrip("\n")))

    def __enter__(self) -> "TerminalView":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in (*self._lines.values(), *self._downloads.values()):
            self._progress.update(line, visible=False)
        self._progress.stop()

    def show(self, event: Event) -> None:
        match event:
            case TaskStarted(task_id, worker):
                self._newest[worker] = task_id
                if worker not in self._stepping:  # else it is given ahead of that one's end
                    self._progress.update(self._lines[worker], state=escape(task_id))
            case TaskProgress(task_id, worker):
                self._stepping[worker] = task_id
                self._progress.update(self._lines[worker], state=_steps(event))
            case TaskEnded(result):
                self._failed += not result.success
                failed = f"[red]{self._failed} failed[/red]" if self._failed else ""
                self._progress.update(self._batch, advance=1, state=failed)
                if result.worker in self._lines:
                    self._progress.update(self._lines[result.worker], advance=1)
                self._end_steps(result.task_id)
                if not result.success:
                    logger.log(*_line(event, ""))
            case TaskSpared():
                self._total -= 1
                self._progress.update(self._batch, total=self._total)
            case WorkerState(worker, state):
                self._stepping.pop(worker, None)
                self._progress.update(self._lines[worker], state=state)
            case ModelFetching(model, done, total):
                if model not in self._downloads:
                    self._downloads[model] = self._progress.add_task(
                        escape(model), total=total, state="", is_download=True
                    )
                line = self._downloads[model]
                self._progress.update(line, completed=done, total=total, visible=done < total)

    def _end_steps(self, task_id: str) -> None:
        """A task is over: its worker's line shows what that one was given last."""
        for worker in [w for w, task in self._stepping.items() if task == task_id]:
            del self._stepping[worker]
            self._progress.update(self._lines[worker], state=escape(self._newest.get(worker, "")))


def _steps(event: TaskProgress) -> str:
    more = f" and {event.together - 1} more" if event.together > 1 else ""
    return f"{event.done}/{event.total} steps  {escape(event.task_id)}{more}"


def _line(event: TaskEnded, count: str) -> tuple[str, str]:
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
