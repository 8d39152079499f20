"""A terminal of a test: what was written to it, and who runs there."""

import os
import pty
import re
import struct
import termios
import threading
from fcntl import ioctl


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
