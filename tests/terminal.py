"""A terminal of a test: what was written to it, and who runs there."""

import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

from tests.conftest import WARM
from tests.warm_commands import WarmCommand


class Terminal:
    """A terminal of so many columns, and all that was written to it."""

    def __init__(self, columns: int = 120) -> None:
        self.ours, self.theirs = pty.openpty()
        ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._bytes = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._bytes += os.read(self.ours, 65536)
            except OSError:  # nobody writes to it any more
                return

    def start(
        self, script: Path, arguments: Sequence[str], folder: Path, output: int | None = None
    ) -> "subprocess.Popen[bytes] | WarmCommand":
        """Start one of the scripts there, in a process group of its own.

        Args:
            output: where its standard output goes, if not there, too.
        """
        able, output = {"TERM": "xterm"}, self.theirs if output is None else output
        warm = WARM.start_on(self.theirs, script, arguments, folder, able, output)
        return warm or subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=folder,
            env={**os.environ, **able},
            stdin=self.theirs,
            stdout=output,
            stderr=self.theirs,
            start_new_session=True,
        )

    def close(self) -> None:
        """Wait for the last that was written to it."""
        os.close(self.theirs)
        self._reader.join()
        os.close(self.ours)

    @property
    def raw(self) -> str:
        """With the terminal's own codes."""
        return self._bytes.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)
