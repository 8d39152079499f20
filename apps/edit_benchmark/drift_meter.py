"""Measures how far edits lie beside their sources while the run makes and scores the others.

A measurement takes some 50 ms of a core at a megapixel: a minute for a thousand edits, if it began
when the run is done. Main has no time for it meanwhile, as no device may wait, so processes of the
lowest priority measure what has come so far.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from apps.edit_benchmark.drifts import Measured, drifts_in
from core.paths import as_text, on_disk
from core.settings import PROJECT_DIR

PROCESSES = max(1, min(4, (os.cpu_count() or 1) // 2))
WORTH = 16  # edits from which on a process repays its start
PATIENCE = 30.0  # seconds for what is being measured when the run ends

_Edit = tuple[str, Path, Path]
"""What records call an edit, its file, and its source."""


class DriftMeter:
    """Takes edits as they come to be there, from any thread, and measures them beside the run.

    Args:
        folder: the results' folder.

    Attributes:
        found: what was measured so far, by what records call the edit.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: queue.SimpleQueue[_Edit | None] = queue.SimpleQueue()
        self._before = drifts_in(folder)
        self._lock = threading.Lock()
        self._taken = 0
        self.found: dict[str, Measured] = {}
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    def take(self, edited: Path, source: str) -> None:
        """Take an edit that is there; returns at once.

        Args:
            source: its first source, as its pair names it.
        """
        file = Path(on_disk(source))
        name = edited.relative_to(self._folder) if edited.is_relative_to(self._folder) else edited
        known = self._before.get(as_text(name))
        if known is not None and known.get("files") == _files(edited, file):
            return
        self._waiting.put((as_text(name), edited, file))
        with self._lock:
            self._taken += 1
            if self._taken != WORTH or self._ended.is_set():
                return
            self._threads = [
                threading.Thread(target=self._measure, name=f"drift-{i}", daemon=True)
                for i in range(PROCESSES)
            ]
        for thread in self._threads:
            thread.start()

    def finish(self) -> dict[str, Measured]:
        """What was measured, by the edit; what still waits is left to whoever asks."""
        with self._lock:
            self._ended.set()
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(PATIENCE)
        return dict(self.found)

    def _measure(self) -> None:
        """Have a process measure one edit after another."""
        process = _start()
        if process is None:
            return
        with suppress(OSError, ValueError):  # it died: what is not measured is measured later
            while (edit := self._waiting.get()) is not None and not self._ended.is_set():
                name, edited, source = edit
                found = _answer(process, [str(edited), str(source)])
                if found is not None:
                    self.found[name] = found
        with suppress(OSError):
            process.communicate(timeout=PATIENCE)


def _files(edited: Path, source: Path) -> Any:
    try:
        return [[stat.st_size, stat.st_mtime_ns] for stat in (edited.stat(), source.stat())]
    except OSError:
        return None


def _answer(process: "subprocess.Popen[str]", question: list[str]) -> Any:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def _start() -> "subprocess.Popen[str] | None":
    """A process that measures; None where none can be started."""
    with suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-m", "apps.edit_benchmark.drift_process"],
            cwd=PROJECT_DIR,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        )
    return None
