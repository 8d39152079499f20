"""The process that keeps the gallery of a run up to date while the run goes on.

It is started by `apps.gallery.live` and reads the folder from outside, at the lowest priority: the
run's own processes have no work with the page. Each look costs as much as the folder is large, so
that the looks come at growing intervals. Between them it makes small copies of large pictures.

Standard input is all that ties it to its run: a line `end` says that the run has ended; its end
without that line, that the run was killed. Either way the page is written a last time; after a kill
only if that is little work, since the next run of the folder keeps the page from then on. A busy
machine may give this process next to no time: what counts is its own, and, if it waits for a disk,
the seconds that a second argument gives.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from apps.gallery.items import Item
from apps.gallery.thumbnails import make_last_thumbnails, make_thumbnails
from apps.gallery.writer import GalleryWriter
from core.errors import MultiGPUError

OFTEN = 3.0  # seconds between looks, at least
SHARE = 0.02  # of one core that looks may take
NICE = 19
WORK_AFTER_A_KILL = 1.0  # seconds of a core for the last page of a run that was killed
AFTER_A_KILL = 30.0  # seconds by the clock
LOOK = 0.1  # seconds between looks whether they are over


class Follower:
    """Follows one folder until its run has ended.

    Args:
        folder: the output folder of the run.
        after_a_kill: seconds at most for the last page if the run was killed.
    """

    def __init__(self, folder: Path, after_a_kill: float = AFTER_A_KILL) -> None:
        self._folder = folder
        self._after_a_kill = after_a_kill
        self._writer = GalleryWriter(folder)
        self._over = threading.Event()
        self._ended_well = False

    def hear(self) -> None:
        """Wait for what standard input says; call it in a thread of its own.

        It ends the process if that has still much to do after its run was killed.
        """
        with suppress(OSError, ValueError):
            self._ended_well = "end" in sys.stdin.read().split()
        self._over.set()
        if not self._ended_well:
            due, worked = time.monotonic() + self._after_a_kill, time.process_time()
            while time.monotonic() < due and time.process_time() - worked < WORK_AFTER_A_KILL:
                time.sleep(LOOK)
            os._exit(1)

    def run(self) -> int:
        """Follow; returns the exit code: 1 if the last page could not be written."""
        while not self._over.is_set():
            begin = time.process_time()
            items: Sequence[Item] = ()
            with suppress(MultiGPUError):  # nothing to read yet, or it cannot be read just now
                items = self._writer.write(running=True).items
            pause = max(OFTEN, (time.process_time() - begin) / SHARE)
            next_look = time.monotonic() + pause
            with suppress(MultiGPUError):
                make_thumbnails(self._folder, items, partial(self._goes_on, next_look))
            self._over.wait(max(0.0, next_look - time.monotonic()))
        return self._end()

    def _goes_on(self, due: float) -> bool:
        return not self._over.is_set() and time.monotonic() < due

    def _end(self) -> int:
        try:
            items = self._writer.write().items
            if self._ended_well:
                make_last_thumbnails(self._folder, items)
        except MultiGPUError as error:
            if self._ended_well:
                print(error, file=sys.stderr)
            return 1
        return 0


def main() -> int:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):  # they are meant for the run
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(NICE)
    follower = Follower(Path(sys.argv[1]), *map(float, sys.argv[2:3]))
    threading.Thread(target=follower.hear, daemon=True).start()
    return follower.run()


if __name__ == "__main__":
    sys.exit(main())
