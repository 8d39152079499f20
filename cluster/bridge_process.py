"""The bridge's process, as main starts it, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from core.details import detail
from core.errors import InputError
from core.settings import PROJECT_DIR

ENDING = 20.0  # seconds for the bridge to end by itself
DYING = 5.0  # seconds for the kernel to end one that was killed
LOG_PREFIX = "ray-bridge-"
KEPT = 7 * 86_400.0  # seconds for which the log of a failed run stays
CODE = "from cluster.bridge import main; main({})"


class BridgeProcess:
    """A bridge that was started.

    Attributes:
        connection: to it.

    Raises:
        InputError: no process can be started.
    """

    def __init__(self) -> None:
        self.connection: Connection
        try:
            self.connection, theirs = Pipe()
        except OSError as error:
            raise _not_started(error) from None
        try:
            self._log = _Log()
        except OSError as error:
            self.connection.close()
            theirs.close()
            raise _not_started(error) from None
        try:
            self._process = _start(theirs.fileno(), self._log.path)
        except BaseException:
            self.connection.close()
            self._log.path.unlink(missing_ok=True)
            raise
        finally:
            theirs.close()

    def kill(self) -> None:
        """Have it end at once, whatever it is doing."""
        self._process.kill()

    def wait(self) -> None:
        """Wait for its end, which it was asked for; kill it if it takes too long."""
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(DYING)
        if self._process.returncode == 0:
            self._log.path.unlink(missing_ok=True)
        else:
            detail(f"Ray's own log of this run: {self._log.path}")

    @property
    def last_words(self) -> str:
        """What Ray printed last; "" if that was nothing."""
        return self._log.last_line

    def has_printed(self, word: str) -> bool:
        """Whether something is in what Ray printed."""
        return word in self._log.text

    def describe_end(self) -> str:
        """How it ended, and where its log is, once its connection has."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(DYING)
        code = self._process.returncode
        how = f"with exit code {code}"
        if code is None:
            how = "though its process goes on"
        elif code < 0:
            with suppress(ValueError):
                how = f"by {signal.Signals(-code).name}"
        return f"{how}; Ray's own log: {self._log.path}"


class _Log:
    """A file for what Ray prints, which is removed where all went well."""

    def __init__(self) -> None:
        for old in Path(tempfile.gettempdir()).glob(f"{LOG_PREFIX}*"):  # of programs that died
            with suppress(OSError):
                if time.time() - old.stat().st_mtime > KEPT:
                    old.unlink()
        descriptor, name = tempfile.mkstemp(prefix=LOG_PREFIX, suffix=".log")
        os.close(descriptor)
        self.path = Path(name)

    @property
    def text(self) -> str:
        with suppress(OSError):
            return self.path.read_text("utf-8", errors="replace")
        return ""

    @property
    def last_line(self) -> str:
        lines = self.text.split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _start(descriptor: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start the bridge from a thread that lives as long as this program.

    The kernel ends the bridge with the thread that started it.
    """
    started: list[subprocess.Popen[bytes] | Exception] = []
    ready = threading.Event()

    def keep() -> None:
        try:
            started.append(_popen(descriptor, log))
        except Exception as error:
            started.append(error)
        ready.set()
        if isinstance(started[0], subprocess.Popen):
            started[0].wait()

    threading.Thread(target=keep, name="cluster-bridge", daemon=True).start()
    ready.wait()
    if isinstance(started[0], OSError):
        raise _not_started(started[0])
    if isinstance(started[0], Exception):
        raise started[0]
    return started[0]


def _not_started(error: OSError) -> InputError:
    where = f": {error.filename}" if error.filename else ""
    return InputError(f"engine: ray cannot be started here: {error.strerror}{where}.")


def _popen(descriptor: int, log: Path) -> "subprocess.Popen[bytes]":
    known = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT_DIR), *known])}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", CODE.format(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=PROJECT_DIR,  # Ray's processes look for modules in the current folder
            env=environment,
            pass_fds=[descriptor],
            start_new_session=True,  # a terminal's Ctrl-C is for main, which decides what it means
        )
