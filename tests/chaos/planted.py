"""What is planted in an engine on purpose: faults, each of which the checks have to find.

And a slow disk, with which they have to find nothing.
"""

import random
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from core.engine.job import Job
from core.engine.recorder import Then
from core.messages import Done
from core.store.attempt import Attempt
from core.store.folder_recorder import FolderRecorder
from core.store.outputs import publish
from core.tasks import Result

SLOW_DISK = "a slow disk"
SLOWEST = 0.1  # seconds to record a result
OFTEN = 7  # every so many calls one goes wrong


def _forget_ends() -> None:
    """Some results get their name and no record."""
    keep, calls = FolderRecorder.keep, count(1)

    def forgetful(self: FolderRecorder, attempt: Attempt, done: Done, then: Then) -> None:
        if next(calls) % OFTEN:
            keep(self, attempt, done, then)
        else:
            file = Path(attempt.partial_path)
            self.call(lambda: publish(file, attempt.admitted.output.file, done.size), then)

    _replace(FolderRecorder, "keep", forgetful)


def _lose_cancelled() -> None:
    """Some tasks of a cancelled job have no result."""
    settle, calls = Job.settle, count(1)

    def careless(self: Job, result: Result) -> None:
        if result.status != "interrupted" or next(calls) % OFTEN:
            settle(self, result)

    _replace(Job, "settle", careless)


def _keep_thrown_away() -> None:
    """What thrown-away attempts have written stays."""
    _replace(FolderRecorder, "discard", lambda self, attempt: None)


def _record_twice() -> None:
    """Some results are recorded again, as another attempt's."""
    keep, calls = FolderRecorder.keep, count(1)

    def repeating(self: FolderRecorder, attempt: Attempt, done: Done, then: Then) -> None:
        keep(self, attempt, done, then)
        if next(calls) % OFTEN == 0:
            folder = attempt.admitted.output.file.parent
            file = folder / ".partial-twice"

            def copy() -> None:
                file.write_bytes(attempt.admitted.output.file.read_bytes())

            again = Attempt(
                f"{attempt.lease_id}-again",
                attempt.batch,
                attempt.admitted,
                attempt.number + 1,
                attempt.worker,
                str(file),
            )
            self.begin(again, _ignore)
            self.call(copy, _ignore)
            keep(self, again, done, _ignore)

    _replace(FolderRecorder, "keep", repeating)


def _slow_disk() -> None:
    """Results wait to be recorded, and much happens to workers and to other attempts meanwhile."""
    keep, rng = FolderRecorder.keep, random.Random(1)

    def slow(self: FolderRecorder, attempt: Attempt, done: Done, then: Then) -> None:
        self.call(partial(time.sleep, rng.uniform(0, SLOWEST)), _ignore)
        keep(self, attempt, done, then)

    _replace(FolderRecorder, "keep", slow)


def _ignore(_: Any) -> None:
    pass


def _replace(owner: type, name: str, method: Callable[..., Any]) -> None:
    setattr(owner, name, method)


FAULTS: dict[str, tuple[Callable[[], None], str]] = {
    "a recorder that forgets ends": (_forget_ends, "unrecorded"),
    "a cancel that drops records": (_lose_cancelled, "lost"),
    "a cancel that leaves files": (_keep_thrown_away, "leftover"),
    "results recorded twice": (_record_twice, "duplicate"),
}
"""By name: how it is planted, and the violation that it is."""


def plant(name: str | None) -> None:
    """Plant it in this process, if there is anything to be planted."""
    if name == SLOW_DISK:
        _slow_disk()
    elif name is not None:
        FAULTS[name][0]()
