"""What a run shows on a terminal: `apps.status_lines`, drawn over again twice a second."""

import sys
from collections.abc import Callable

from loguru import logger
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from apps.log_lines import line_of, log_to
from apps.status_lines import ASCII_BAR, Bar, status_lines
from core.events import Event, TaskEnded
from core.status.tracker import RunTracker
from core.tasks import Result

A_SECOND = 2  # drawings: as often as steps are told


def bar_of(console: Console) -> Bar:
    """The letters of bars that a terminal has."""
    return Bar() if console.encoding.lower().startswith("utf") else ASCII_BAR


def live_lines(
    console: Console, draw: Callable[[int, int], list[Text]], transient: bool = False
) -> Live:
    """Lines that are drawn over again, until they are stopped.

    Args:
        draw: lines for so many columns, and how many there may be.
        transient: nothing of them is left at the end.
    """
    return Live(
        console=console,
        # A terminal moves on when its last column or line is written.
        get_renderable=lambda: Group(*draw(console.width - 1, console.height - 1)),
        refresh_per_second=A_SECOND,
        transient=transient,
        vertical_overflow="crop",
    )


class TerminalView:
    """Bars for the tasks and a line for each worker; log lines scroll above them.

    Where standard output is the terminal, too, the bars go at the end: the summary that follows
    says the same.
    """

    def __init__(self, tracker: RunTracker, log_level: str) -> None:
        self._console = Console(stderr=True)
        bar = bar_of(self._console)
        self._live = live_lines(
            self._console,
            lambda width, most: status_lines(tracker.status(), width, most, bar),
            transient=sys.stdout.isatty(),
        )
        log_to(self._write, log_level, colorize=True)

    def _write(self, line: str) -> None:
        # A line break of ours in a path or a command would be one for whoever copies it.
        self._console.print(Text.from_ansi(line.rstrip("\n")), soft_wrap=True)

    def __enter__(self) -> "TerminalView":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def settled(self, result: Result, kind: str) -> None:
        return None

    def show(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and not event.result.success:
            logger.log(*line_of(event, ""))
