"""What libraries say in a worker, by `warnings`, `logging` or a plain print, on its way to main.

Nothing is swallowed and nothing is printed from here: what a user may want to act on comes as a
warning, what is for programmers (deprecations, first of all) for `--log-level DEBUG`.
"""

import io
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TextIO

from core.messages import MAX_TEXT_BYTES, LibraryWarning, clip
from workers.channel import at_work_on

Send = Callable[[LibraryWarning], None]

_FOR_USERS = (UserWarning, RuntimeWarning)  # other categories are for programmers
_DEPRECATED = re.compile("deprecat", re.IGNORECASE)  # also where it is said without its category
# `workers.prompt_cuts` says of both, better, which task they concern and where the text is cut.
_CUT_PROMPT = re.compile(
    r"part of your input was truncated|Token indices sequence length is longer than"
)
# Asked for here: Pillow where torchvision is missing (`workers.processors`). What is said of LoRAs
# as they are loaded is for `workers.lora_adapter`.
_AS_INTENDED = re.compile(r"requires torchvision \(not installed\); falling back to")
# How one library calls another: nothing that a user could change.
_BETWEEN_LIBRARIES = re.compile(
    r"`max_length` is ignored when `padding`=`True`"
    # Kernels of torchao and bitsandbytes for other devices, and other formats than ours.
    r"|Failed to load .*(torchao|CPU gemm_4bit_forward)|Unable to import `torchao` Tensor objects"
    r"|Detected no triton"
    # Weight-only int8 computes in the model's own type, whichever that is.
    r"|only bfloat16 is supported right now"
    # Group offloading follows the layers as they run, and fetches at once what it did not expect.
    r"|It seems like some layers were not executed during the forward pass"
)
# Said of models that have none of them, after a load from a single file (diffusers 0.42).
_NOTHING_NAMED = re.compile(r"should be kept in float32: \[\]")
_PROGRESS_BAR = re.compile(r"\d+%\|.*\|")
_QUIET = (_DEPRECATED, _CUT_PROMPT, _AS_INTENDED, _BETWEEN_LIBRARIES, _NOTHING_NAMED, _PROGRESS_BAR)


class _Collector(logging.Handler):
    """Passes on what libraries say; keeps it until it is told where to."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._send: Send | None = None
        self._kept: list[LibraryWarning] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # arguments that do not fit the text; no task fails for that
            text = record.msg if isinstance(record.msg, str) else repr(record.msg)
        self.say("WARNING", f"{record.name.split('.')[0]}: {text}")

    def show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Stands in for `warnings.showwarning`."""
        del file, line
        level = "WARNING" if issubclass(category, _FOR_USERS) else "DEBUG"
        where = f" ({category.__name__}, line {lineno})" if level == "DEBUG" else ""
        self.say(level, f"{_library_of(filename)}: {message}{where}")

    def say(self, level: str, text: str) -> None:
        text = " ".join(text.split())
        if any(known.search(text) for known in _QUIET):
            level = "DEBUG"
        message = LibraryWarning(level, clip(text), at_work_on())
        if self._send is None:
            self._kept.append(message)
        else:
            self._send(message)

    def pass_on(self, send: Send) -> None:
        """Send what was kept, and from now on everything at once."""
        self._send = send
        for message in self._kept:
            send(message)
        self._kept.clear()


class _Lines(io.TextIOBase):
    """A standard stream whose lines go to the log instead."""

    def __init__(self, instead_of: TextIO | None, level: str, collector: _Collector) -> None:
        self._instead_of = instead_of
        self._level = level
        self._collector = collector
        self._begun = ""
        self._one_at_a_time = threading.Lock()

    def write(self, text: str) -> int:
        with self._one_at_a_time:  # or threads would say each other's words again
            *lines, self._begun = (self._begun + text).replace("\r", "\n").split("\n")
            if len(self._begun) > MAX_TEXT_BYTES:  # more than is shown of a line that has no end
                lines, self._begun = [*lines, self._begun], ""
        for line in lines:
            if line.strip():
                self._collector.say(self._level, line)
        return len(text)

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def fileno(self) -> int:
        """File number of the real stream, which child processes may inherit."""
        if self._instead_of is None:
            return super().fileno()
        return self._instead_of.fileno()


_collector = _Collector()


def collect() -> None:
    """Keep what libraries say from now on; a fork of this process passes it on with `pass_on`."""
    warnings.showwarning = _collector.show_warning
    warnings.simplefilter("default")
    logging.getLogger().handlers = [_collector]


def pass_on(send: Send) -> None:
    """Send what libraries have said, and all that they will say, to main."""
    collect()
    take_over_handlers()
    streams: Any = sys
    streams.stdout = _Lines(sys.stdout, "DEBUG", _collector)
    streams.stderr = _Lines(sys.stderr, "WARNING", _collector)
    _collector.pass_on(send)


def take_over_handlers() -> None:
    """Let imported libraries that print their records hand them on instead."""
    for logger in list(logging.root.manager.loggerDict.values()):
        if not isinstance(logger, logging.Logger):
            continue
        for handler in [h for h in logger.handlers if _prints(h)]:
            logger.removeHandler(handler)
            logger.propagate = True


def _prints(handler: logging.Handler) -> bool:
    to_terminal = getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
    return type(handler) is logging.StreamHandler or to_terminal


def _library_of(filename: str) -> str:
    """The package that a source file belongs to."""
    parts = PurePath(filename).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts[:-1]:
            return parts[parts.index(folder) + 1].removesuffix(".py")
    return PurePath(filename).stem
