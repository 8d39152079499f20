"""A hub's model is fetched once, by a process of its own, before any worker loads it.

A transfer may take as long as it likes and may not stand still: where no byte comes for
`supervision.load_stall_timeout`, its process is ended and another one goes on with what is there.
"""

import multiprocessing.connection
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from loguru import logger

from core.byte_sizes import shown_bytes
from core.details import log_line
from core.engine.fetch import Fetch
from core.errors import one_line
from core.events import Listener, ModelFetching
from core.messages import Fetched, Fetching, FetchPause, FetchRefused, Log, decode
from core.paths import UTF8_MODE, for_worker
from core.processes.process_start import WorkerProcess
from core.processes.spawning import Spawning
from core.settings import SupervisionSettings
from core.worker_spec import WorkerSpec

FetchMain = Callable[[WorkerSpec, Connection], None]

PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try, until one brings some bytes
SLICE = 1.0  # seconds between looks; what main misses of longer ones counts against nobody
STOP_TIMEOUT = 5.0  # seconds for the process to end after SIGKILL
_ENVIRONMENT = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", **UTF8_MODE}


class ModelFetch:
    """One model on its way to this machine.

    Args:
        target: what the process runs.
        spec: of a worker that is to load the model.

    Attributes:
        on_change: called, from a thread of its own, when there is something new to read here.
        folder: where its files lie, as workers have to be told; None until they are there.
        refusal: why it cannot be had, or None.
        transfers: bytes are coming, which may take long.
    """

    def __init__(
        self,
        target: FetchMain,
        spec: WorkerSpec,
        rules: SupervisionSettings,
        listener: Listener,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.folder: str | None = None
        self.refusal: str | None = None
        self.transfers = False
        self._target = target
        self._spec = spec
        self._rules = rules
        self._listener = listener
        self._done = self._total = 0  # bytes
        self._stopping, self._over = threading.Event(), threading.Event()
        self._after: Fetch | None = None
        self._thread = threading.Thread(target=self._run, name="model-fetch", daemon=True)

    def start(self, after: Fetch | None = None) -> None:
        """Begin to fetch; does nothing the second time.

        Args:
            after: another model that has the whole line until it is there.
        """
        if self._thread.ident is None:
            self._after = after
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until it is there or cannot be had; False if time was up before."""
        return self._over.wait(seconds)

    def stop(self) -> None:
        """End it, wherever it is; what came stays for the next run."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    # -- the thread, which the process does not outlive ----------------------------------------

    def _run(self) -> None:
        while self._after is not None and not self._after.wait(SLICE):
            if self._stopping.is_set():
                return
        try:
            self._fetch()
        except Exception as error:
            logger.exception("Fetching the model broke down; this is a defect, please report it.")
            self.refusal = f"{self._spec.source} could not be fetched ({error!r})."
        self._over.set()
        self.on_change()

    def _fetch(self) -> None:
        began, tries = time.monotonic(), 0
        while not self._stopping.is_set():
            before = self._done
            problem = self._try()
            if problem is None or self._stopping.is_set():
                break
            tries = 1 if self._done > before else tries + 1
            if tries > len(PAUSES):
                self.refusal = f"{self._spec.source} after {tries} tries: {problem}"
                return
            pause = PAUSES[tries - 1]
            logger.warning(
                f"{self._spec.source}: {problem} Try {tries + 1} of {len(PAUSES) + 1} follows in "
                f"{pause:g} s, and goes on with what is there."
            )
            self._stopping.wait(pause)
        if self.folder is not None and self.transfers:
            self._tell(self._total, self._total)
            seconds = time.monotonic() - began
            logger.info(f"{self._spec.source}: downloaded in {seconds:.0f} s.")

    def _try(self) -> str | None:
        """One process, to its end; returns why another one should follow, or None."""
        reader, writer = Pipe(duplex=False)
        spec = replace(self._spec, model=for_worker(self._spec.model))  # a hub id is ASCII
        try:
            process = Spawning().start(
                self._target, (spec, writer), f"fetch-{self._spec.role}", _ENVIRONMENT
            )
        except Exception as error:  # out of processes, memory or file descriptors
            reader.close()
            return f"its download could not be started: {error}."
        finally:
            writer.close()
        try:
            return self._follow(process, reader)
        finally:
            process.kill()
            process.close()
            reader.close()

    def _follow(self, process: WorkerProcess, reader: Connection) -> str | None:
        silent = allowed = 0.0  # seconds
        looked = time.monotonic()
        transfers = hung_up = False  # of this process
        while not self._stopping.is_set():
            limit = self._rules.load_stall_timeout if transfers else self._rules.boot_timeout
            left = limit + allowed - silent
            if left <= 0:
                what = "no byte of it came" if transfers else "its download said nothing"
                return f"{what} for {limit:g} s."
            sources: list[Connection | int] = [process.sentinel]
            sources += [] if hung_up else [reader]
            ready = multiprocessing.connection.wait(sources, min(left, SLICE))
            now = time.monotonic()
            silent += min(now - looked, 2 * SLICE)
            looked = now
            while reader in ready and reader.poll():
                try:
                    message = decode(reader.recv_bytes())
                except (EOFError, OSError):
                    hung_up = True
                    break
                if isinstance(message, Fetching):
                    transfers = True
                    silent = allowed = 0.0
                    self._tell(message.done, message.total)
                elif not transfers:
                    silent = allowed = 0.0
                if isinstance(message, FetchPause):
                    allowed += message.seconds
                if self._has_ended(message):
                    return None
            if process.exit_code is not None and hung_up:
                return f"its download ended with exit code {process.exit_code}."
        return None

    def _has_ended(self, message: Any) -> bool:
        match message:
            case Log(level, text):
                log_line(level, one_line(text))
            case Fetched(folder):
                self.folder = folder
            case FetchRefused(error):
                self.refusal = error
        return isinstance(message, Fetched | FetchRefused)

    def _tell(self, done: int, total: int) -> None:
        """Say how far it is, if something has to come at all."""
        self._done, self._total = done, total
        if not self.transfers and done < total:
            self.transfers = True
            missing, whole = shown_bytes(total - done), shown_bytes(total)
            logger.info(f"{self._spec.source}: downloading {missing} of {whole}.")
            self.on_change()
        if self.transfers:
            self._listener(ModelFetching(self._spec.source, done, total))
