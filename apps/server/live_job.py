"""A job that is on its way, as the daemon's callers follow it. All of it in the event loop."""

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from apps.server.errors import leaving
from apps.server.outlines import TaskOutline
from apps.server.records import Settled, StoredJob, TaskResult
from core.engine.job import Job

PREVIEWS_KEPT = 64  # of one job, some 10 KB each; a request for images has up to 30


@dataclass(frozen=True)
class Running:
    """A task that a worker has.

    Attributes:
        done: steps of `total`, which is 0 until the worker tells it, where the task does not say.
    """

    task_id: str
    outline: TaskOutline
    worker: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Preview:
    """What a running task's picture has come to.

    Attributes:
        number: how many previews of the job came before it, and itself: 1 for the first.
        position: of the task in its job.
        step: of `total`, after which it was taken.
        content: a small JPEG.
    """

    number: int
    task_id: str
    position: int
    step: int
    total: int
    content: bytes


@dataclass(slots=True, weakref_slot=True)
class LiveJob:
    """What is known of a job beyond the journal, until nobody follows it any more.

    Attributes:
        results: in the order in which they came; each is in the journal already.
        running: by the tasks' names.
        previews: the newest of all tasks, in the order in which they came, if they are asked for.
        open: tasks without a result, by their names; empty until they are read.
        engine_job: the generator's handle, once it has one.
        to_be_cancelled: its caller wants no more of it.
        started: Unix time at which its first task was given to a worker by this daemon.
        waits_for: what the disk said when it refused something of it; None mostly.
        left: the daemon is about to end, and the job goes on when it starts again.
    """

    stored: StoredJob
    results: list[TaskResult] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    previews: deque[Preview] = field(default_factory=lambda: deque(maxlen=PREVIEWS_KEPT))
    open: dict[str, TaskOutline] = field(default_factory=dict)
    engine_job: Job | None = None
    to_be_cancelled: bool = False
    started: float | None = None
    waits_for: str | None = None
    left: bool = False
    _changed: asyncio.Event | None = None

    @property
    def ended(self) -> bool:
        return self.stored.has_ended

    @property
    def waiting(self) -> int:
        """Tasks without a result that no worker has."""
        return max(0, self.stored.total - len(self.results) - len(self.running))

    def began(self, now: float) -> None:
        """A task was given to a worker."""
        if self.started is None:
            self.started = now
        if self.stored.status == "queued":
            self.stored = replace(self.stored, status="running", started=now)

    def note(self, task_id: str, worker: str, done: int = 0, total: int = 0) -> Running | None:
        """A worker has a task, or tells of its steps; None for one that has its result."""
        if task_id not in self.open:
            return None  # a second run of it, which was slower
        running = Running(task_id, self.open[task_id], worker, done, total)
        self.running[task_id] = running
        self.tell()
        return running

    def show(self, task_id: str, step: int, total: int, content: bytes) -> Preview | None:
        """A worker shows what a task's picture has come to; None for one that has its result."""
        if task_id not in self.open:
            return None
        number = self.previews[-1].number + 1 if self.previews else 1
        position = self.open[task_id].position
        preview = Preview(number, task_id, position, step, total, content)
        self.previews.append(preview)
        self.tell()
        return preview

    def previews_after(self, number: int) -> list[Preview]:
        """Previews that came after the one with a number; 0: all that are kept."""
        return [preview for preview in self.previews if preview.number > number]

    def newest_preview(self, running: Running) -> Preview | None:
        """The newest preview of a task that a worker has."""
        of_task = (one for one in reversed(self.previews) if one.task_id == running.task_id)
        return next(of_task, None)

    def add(self, settled: Settled) -> None:
        """Results have come, and are in the journal."""
        self.results += settled.results
        for one in settled.results:
            name = str(one.result.get("task_id"))
            self.running.pop(name, None)
            self.open.pop(name, None)
        status = settled.job.status
        if not settled.job.has_ended:
            status = self.stored.status
        else:
            self.running.clear()
        self.stored = replace(settled.job, status=status)
        self.tell()

    def update(self, **changes: Any) -> None:
        self.stored = replace(self.stored, **changes)
        self.tell()

    def leave(self) -> None:
        """Let go of whoever follows the job: the daemon is about to end."""
        self.left = True
        self.tell()

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    def next_change(self) -> asyncio.Event:
        """Set with the next change. Ask before you look, so that none is missed meanwhile."""
        if self._changed is None:
            self._changed = asyncio.Event()
        return self._changed

    async def change(self) -> None:
        """Wait for the next change."""
        await self.next_change().wait()

    async def end_of_it(self) -> StoredJob:
        """Wait until the job has ended.

        Raises:
            ApiError: 503: the daemon ends before.
        """
        while not self.ended:
            if self.left:
                raise leaving(f"The server stops. {self.stored.id} goes on when it starts again.")
            await self.change()
        return self.stored
