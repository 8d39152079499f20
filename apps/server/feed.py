"""What happens to callers' jobs, told to whoever watches all of them. All of it in the event loop.

A watcher that does not keep up loses what is oldest, and is told so: nobody waits for it.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from apps.server.live_job import Preview, Running
from apps.server.records import StoredJob, TaskResult

MOST_KEPT = 1000  # events of one watcher that it has not taken yet


@dataclass(frozen=True)
class JobChanged:
    """A job was accepted, began, ended, was cancelled, or waits for the disk."""

    job: StoredJob


@dataclass(frozen=True)
class StepTold:
    """A worker has a task of a job, or tells of its steps."""

    job: str
    running: Running


@dataclass(frozen=True)
class PreviewShown:
    """A worker shows what the picture of a task of a job has come to."""

    job: str
    preview: Preview


@dataclass(frozen=True)
class ResultCame:
    """A task has its result, which is in the journal."""

    job: StoredJob
    result: TaskResult


Happening = JobChanged | StepTold | PreviewShown | ResultCame


class Watcher:
    """What one watcher has not taken yet.

    Attributes:
        missed: something was dropped since it took the last.
        closed: nothing more comes.
    """

    def __init__(self) -> None:
        self.missed = False
        self.closed = False
        self._kept: deque[Happening] = deque()
        self._news = asyncio.Event()

    def put(self, happening: Happening) -> None:
        """Keep something for it."""
        if len(self._kept) == MOST_KEPT:
            self._kept.popleft()
            self.missed = True
        self._kept.append(happening)
        self._news.set()

    def close(self) -> None:
        """Let it go."""
        self.closed = True
        self._news.set()

    async def take(self) -> list[Happening]:
        """Wait for what happens next; an empty list only at the end."""
        await self._news.wait()
        self._news.clear()
        taken = list(self._kept)
        self._kept.clear()
        return taken


class Feed:
    """Watchers by caller."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[Watcher]] = {}
        self._closed = False

    @contextmanager
    def watch(self, caller: str) -> Iterator[Watcher]:
        """Watch a caller's jobs from now on."""
        watcher = Watcher()
        if self._closed:
            watcher.close()
        self._watchers.setdefault(caller, []).append(watcher)
        try:
            yield watcher
        finally:
            left = self._watchers[caller]
            left.remove(watcher)
            if not left:
                del self._watchers[caller]

    def tell(self, caller: str, happening: Happening) -> None:
        """Something happened to a caller's job."""
        for watcher in self._watchers.get(caller, ()):
            watcher.put(happening)

    def close(self) -> None:
        """Let all watchers go: the daemon is about to end."""
        self._closed = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.close()
