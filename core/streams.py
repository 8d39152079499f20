"""Standard streams that cannot end a run: what cannot be said is dropped, and the pictures go on.

A closed pipe (`| head`), a full disk behind a redirection, a terminal that went away and a locale
without the letters are all no reason for an exit code: that is about the results.
"""

import io
import os
import select
import sys
from typing import Any, TextIO

STANDARD = (0, 1, 2)


def occupy_standard_descriptors() -> None:
    """Open the null device in place of standard streams that were closed (`>&-`).

    Otherwise the next file or pipe of this program gets the number, and whoever prints, in this
    process or in a worker, writes into it.
    """
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)


def protect_standard_streams() -> None:
    """Make writing to standard streams never raise; called before a program prints anything."""
    occupy_standard_descriptors()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = _forgiving(number, getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


class _Forgiving(io.FileIO):
    """A standard stream's descriptor. Each write reaches it, or is dropped, at once."""

    def write(self, data: Any, /) -> int:
        try:
            while (written := super().write(data)) is None:  # whoever shares it made it so
                select.select([], [self], [])
            return written
        except OSError:
            return memoryview(data).nbytes


def _forgiving(number: int, replaced: TextIO | None) -> TextIO:
    """
    Args:
        replaced: None where it was closed when Python started.
    """
    return io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(number, "wb", closefd=False)),
        encoding=replaced.encoding if replaced else "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or os.isatty(number),
        write_through=bool(getattr(replaced, "write_through", False)),
    )
