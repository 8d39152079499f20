"""One line of text that says how a run stands, and is drawn over again: for notebooks, above all.

It needs no widgets and no codes of terminals but the carriage return, which notebooks know.
"""

import threading
from collections.abc import Callable
from typing import TextIO

EVERY = 0.5  # seconds between two looks


class ProgressLine:
    """Keeps the line up from a thread of its own, from `start` to `stop`.

    Args:
        words: what it says at a moment; nothing is shown where that is empty.
        stream: where it is written; whoever else writes lines there uses `write_above`.
        stays: its last words are left when it stops.
    """

    def __init__(
        self,
        words: Callable[[], str],
        stream: TextIO,
        every: float = EVERY,
        stays: bool = True,
    ) -> None:
        self._words = words
        self._stays = stays
        self._stream = stream
        self._every = every
        self._shown = ""
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Show the line from now on."""
        if self._thread is None:
            self._closing.clear()
            self._thread = threading.Thread(target=self._run, name="progress line", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Show how the run ended, and leave the line as it is; or take it away."""
        if self._thread is not None:
            self._closing.set()
            self._thread.join()
            self._thread = None
            with self._lock:
                if self._stays:
                    self._draw(self._words())
                    self._write("\n")
                    self._shown = ""
                else:
                    self._draw("")

    def write_above(self, text: str) -> None:
        """Write whole lines where the line stands, and the line below them."""
        with self._lock:
            shown, self._shown = self._shown, ""
            self._wipe(shown)
            self._write(text)
            if shown:
                self._draw(shown)

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            with self._lock:
                self._draw(self._words())

    def _draw(self, text: str) -> None:
        """Draw the line over itself; what was longer before is covered by spaces."""
        if not text:
            self._wipe(self._shown)
        elif text != self._shown:
            self._write("\r" + text + " " * max(0, len(self._shown) - len(text)))
        self._shown = text

    def _wipe(self, shown: str) -> None:
        if shown:
            self._write("\r" + " " * len(shown) + "\r")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            pass
