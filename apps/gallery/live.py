"""The gallery of a run, kept up to date while it goes on: what a command does for it.

That is little, because no device may wait for a page: a thread notes changes of workers' states,
and starts a process that does the rest (`apps.gallery.follower`) when the run has lasted a while.
A shorter run's page is written at its end, with small copies.
"""

import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from loguru import logger

from apps.gallery.places import INDEX
from apps.gallery.states import States
from core.errors import MultiGPUError, one_line
from core.events import Event, WorkerState
from core.paths import as_text
from core.settings import PROJECT_DIR

FOLLOW_AFTER = 5.0  # seconds from the first event on
NOTE_PATIENCE = 5.0  # seconds for changes of states that are still to be noted
PATIENCE = 60.0  # seconds for the process that follows to write the last page


class LiveGallery:
    """Use it as a context manager around a run, and hand it the run's events::

        with (
            LiveGallery("outputs/mine") as gallery,
            MultiGPUImageGenerator(output_dir="outputs/mine", listener=gallery.hear) as generator,
        ):
            generator.generate_batch(tasks)

    Leaving it brings the page up to date for the last time, if anything was done. What goes wrong
    with the page is a warning, and changes nothing about the run.

    Args:
        folder: the output folder.
        on: False does nothing at all.
        follow_after: seconds from the first event until a process follows the run.
    """

    def __init__(
        self, folder: str | Path, on: bool = True, follow_after: float = FOLLOW_AFTER
    ) -> None:
        self._folder = Path(os.path.abspath(folder))
        self._on = on
        self._follow_after = follow_after
        self._heard: queue.SimpleQueue[WorkerState | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._starting = threading.Lock()

    def leave_out(self) -> None:
        """Make no page after all; the command gallery.py makes it when it is wanted."""
        self._on = False

    @property
    def page(self) -> Path | None:
        """The page, if there is one of this run."""
        file = self._folder / INDEX
        return file if self._on and file.is_file() else None

    def __enter__(self) -> "LiveGallery":
        return self

    def hear(self, event: Event) -> None:
        """Take an event of the run; returns at once."""
        if not self._on:
            return
        if isinstance(event, WorkerState):
            self._heard.put(event)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._note, name="gallery", daemon=True)
                    self._thread.start()

    def _note(self) -> None:
        states = States(self._folder)
        due = time.monotonic() + self._follow_after
        while True:
            wait = None if self._process is not None else max(0.0, due - time.monotonic())
            try:
                event = self._heard.get(timeout=wait)
            except queue.Empty:
                self._process = _start(self._folder)
                if self._process is None:
                    due += PATIENCE
                continue
            if event is None:
                return
            states.note(event.worker, event.state)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        nothing_ran = self._thread is None
        if not self._on or (nothing_ran and (error is not None or self.page is not None)):
            return
        if self._thread is not None:
            self._heard.put(None)
            self._thread.join(NOTE_PATIENCE)
        problem = self._finished(self._process) if self._process is not None else self._write()
        if problem:
            logger.warning(f"The page of this run is not up to date: {one_line(problem)}")
        elif self.page is not None:
            logger.info(f"All at a glance: {one_line(as_text(self.page))}")

    def _write(self) -> str | None:
        """Write the page and small copies here and now; returns what went wrong."""
        from apps.gallery.thumbnails import make_last_thumbnails  # no run needs these before
        from apps.gallery.writer import GalleryWriter

        if not self._folder.is_dir():
            return None
        try:
            make_last_thumbnails(self._folder, GalleryWriter(self._folder).write().items)
        except MultiGPUError as error:
            return str(error)
        return None

    def _finished(self, process: "subprocess.Popen[str]") -> str | None:
        """Let the process come to its end; returns what went wrong.

        At its low priority it may get no time on a busy machine: then the page is written here.
        """
        try:
            _, errors = process.communicate("end\n", timeout=PATIENCE)
        except (subprocess.TimeoutExpired, OSError, ValueError):
            process.kill()
            process.wait()
            return self._write()
        return errors.strip().split("\n")[-1] if process.returncode else None


def _start(folder: Path) -> "subprocess.Popen[str] | None":
    """The process that follows a run; None where none can be started."""
    with suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-m", "apps.gallery.follower", str(folder)],
            cwd=PROJECT_DIR,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        )
    return None
