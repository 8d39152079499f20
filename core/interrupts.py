"""Ctrl-C, as a long run should take it."""

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from loguru import logger


class Stoppable(Protocol):
    """A run that can be asked to end; both are safe in a signal handler."""

    def stop_leasing(self) -> None: ...
    def abandon(self) -> None: ...


class Interrupts:
    """Ctrl-C once: finish what runs. Twice: stop at once. SIGTERM counts as one, too."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, run: Stoppable, argv: Sequence[str]) -> None:
        self.count = 0
        self._run = run
        self._resume = shlex.join([Path(sys.executable).name, sys.argv[0], *argv])
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self._run.stop_leasing()
            logger.warning(
                "Interrupted: finishing what is being worked on; once more stops at "
                f"once. Continue later with: {self._resume}"
            )
        else:
            self._run.abandon()
