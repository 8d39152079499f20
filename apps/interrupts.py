"""Ctrl-C, SIGTERM, SIGUSR1 and a closed terminal, as a long run should take them."""

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from loguru import logger

from core.streams import STANDARD

# SIGUSR1 is what Slurm's `--signal=USR1@120` sends 120 s before a job's time is up.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Whoever started the program with these ignored wants it to go on: nohup, for one.
IGNORABLE = (signal.SIGHUP, signal.SIGUSR1)
PATIENCE = 1.0  # seconds for a terminal that takes no text
_whole_program = False  # nothing comes after the run but the interpreter's end


class Stoppable(Protocol):
    """A run that can be asked to end, from any thread; `abandon` is safe in a signal handler."""

    def stop_leasing(self) -> None: ...
    def abandon(self) -> None: ...


class Interrupts:
    """Handles Ctrl-C. Once: finish what runs. Twice: stop at once. Before a run: KeyboardInterrupt.

    Attributes:
        command: the one that was given, which continues what it began.
        run: what is asked to end; set it when there is something to finish.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.count = 0
        self.run: Stoppable | None = None
        self.command = shlex.join([Path(sys.executable).name, sys.argv[0], *argv])
        self._before: dict[int, Any] = {}
        self._terminals = [fd for fd in STANDARD if os.isatty(fd)]

    def __enter__(self) -> "Interrupts":
        for number in SIGNALS:
            if number in IGNORABLE and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if _whole_program else handler)

    def tell_how_to_continue(self) -> None:
        """Log the command that starts a run again that was interrupted before it began."""
        logger.warning(f"Interrupted. Start again with: {self.command}")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._let_go_of_dead_terminal()
        if self.run is None:
            raise KeyboardInterrupt
        if self.count > 1:
            self.run.abandon()
            return
        # Not from here: loguru refuses a log call that interrupts another one in its thread.
        said = threading.Thread(target=self._acknowledge, name="interrupt")
        said.start()
        threading.Thread(target=self._stop, args=(self.run, said), name="stop").start()

    def _acknowledge(self) -> None:
        logger.warning(
            "Interrupted: what is being worked on is finished; once more stops at "
            f"once. Continue later with: {self.command}"
        )

    @staticmethod
    def _stop(run: Stoppable, said: threading.Thread) -> None:
        """Stop once that is said, so that it comes before what the run has to say of its end."""
        said.join(PATIENCE)
        run.stop_leasing()

    def _let_go_of_dead_terminal(self) -> None:
        """Every write to a terminal that was closed would fail, and end the run with an error."""
        closed = [fd for fd in self._terminals if not os.isatty(fd)]
        if closed:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for fd in closed:
                os.dup2(nowhere, fd)
            os.close(nowhere)


@contextmanager
def stopped_by_signals(*numbers: int) -> Iterator[None]:
    """Raise KeyboardInterrupt for signals that come while there is nothing to end in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        with unwrapped():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise a Ctrl-C as it is, also where a library raises an error of its own for it."""
    try:
        yield
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def nothing_comes_after() -> None:
    """Say that the run is the whole program: signals that come after it change nothing."""
    global _whole_program
    _whole_program = True
