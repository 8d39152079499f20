"""Keeps up how a run stands, from its events. Safe for several threads.

A run begins with the first batch of an output folder, or with the first after all others have
ended, and ends with the last one that runs.
"""

import os
import shlex
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from core.devices.device import Device, memory_in_use
from core.events import (
    DevicesNotUsed,
    Event,
    ModelFetching,
    TaskEnded,
    TaskProgress,
    TaskShape,
    TaskStarted,
    TasksWait,
    WorkerState,
)
from core.headway import Headway
from core.status.forecast import Forecast
from core.status.parts import Key, Kind, Worker
from core.status.run_status import (
    PHASES,
    Download,
    Failure,
    KindStatus,
    RunStatus,
    State,
    WorkerStatus,
)
from core.tasks import Result

READY = "ready"
FAILURES_KEPT = 20  # the newest
MEMORY_EVERY = 5.0  # seconds between two looks at a device's memory
MOST_LETTERS = 4000  # of the command


class RunTracker:
    """How the run of an output folder stands.

    Args:
        folder: where results lie; None for any place.
        memory: bytes in use on devices; None where nobody says.
        clock: Unix time.
        ticks: a clock that runs evenly.

    Attributes:
        version: grows with each change that a watcher would see.
        headway: of the look at a batch's inputs, with which a run begins.
    """

    def __init__(
        self,
        folder: Path | None = None,
        memory: Callable[[Sequence[Device]], int | None] = memory_in_use,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = None if folder is None else str(folder)
        self._look_at_memory = memory
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.RLock()  # a signal handler may end what it interrupts
        self.version = 0
        self.headway = Headway()
        self._parts = 0  # that have not ended
        self._started = self._updated = clock()
        self._ended: float | None = None
        self._kinds: dict[str, Kind] = {}
        self._workers: dict[str, Worker] = {}
        self._given: dict[Key, list[Worker]] = {}  # to which workers each open task
        self._models: dict[str, str] = {}  # by kind
        self._downloads: dict[str, Download] = {}
        self._waits: dict[str, str] = {}  # by what they wait for: why
        self._not_used: list[tuple[str, str]] = []  # machines, or devices of them, and why
        self._failures: deque[Failure] = deque(maxlen=FAILURES_KEPT)
        self._already_done = 0
        self._server: str | None = None
        self._forecast = Forecast()
        self._memory_at: float | None = None
        self._process = (os.getpid(), socket.gethostname(), _command())

    # -- what the run says of itself -------------------------------------------------

    def serves(self, kind: str, model: str) -> None:
        """The model for a kind of task."""
        with self._lock:
            self._models[kind] = model

    def has_workers(self, devices: Iterable[Device], server: str | None = None) -> None:
        """Workers that there will be.

        Args:
            server: the daemon whose they are.
        """
        with self._lock:
            self._server = server
            for device in devices:
                worker = self._workers.setdefault(device.label, Worker(device.label))
                worker.device = None if server else device
            self._changed()

    def has_all_devices(self) -> None:
        """There is another engine, which does without none until it says so."""
        with self._lock:
            self._not_used.clear()
            self._changed()

    def begin(
        self, tasks: Iterable[TaskShape], settled: Iterable[Result] = (), more: int = 0
    ) -> None:
        """A part of the run begins: a batch, or the edits or scores of a benchmark.

        Args:
            settled: results that were known before, of tasks like these.
            more: tasks like these that will be added.
        """
        with self._lock:
            if not self._parts:
                self._begin_anew()
            self._parts += 1
            shapes = list(tasks)
            self.add(shapes)
            kind = shapes[0].kind if shapes else "generate"
            if more:
                self._kind(kind).expected += more
            for result in settled:
                self.settle(result, kind)
            self._changed()

    def settle(self, result: Result, kind: str) -> None:
        """A task has a result that was not worked for in this run."""
        with self._lock:
            self._settle(result, TaskShape(kind), was_open=False)
            self._changed()

    def _begin_anew(self) -> None:
        self._started, self._ended = self._clock(), None
        self._kinds = {}
        self._failures.clear()
        self._waits.clear()
        self._already_done = 0
        for worker in self._workers.values():
            worker.done = worker.failed = 0

    def add(self, tasks: Iterable[TaskShape]) -> None:
        """Tasks of a part that runs; as many fewer are expected, so that the total stays."""
        by_kind: dict[str, list[TaskShape]] = {}
        for shape in tasks:
            by_kind.setdefault(shape.kind, []).append(shape)
        with self._lock:
            for kind, shapes in by_kind.items():
                known = self._kind(kind)
                known.add(shapes)
                known.expected = max(0, known.expected - len(shapes))
            self._changed()

    def expect(self, kind: str, tasks: int) -> None:
        """So many tasks of a kind are still to be added."""
        with self._lock:
            if tasks or kind in self._kinds:
                self._kind(kind).expected = tasks
                self._changed()

    def end(self) -> None:
        """A part of the run has ended."""
        with self._lock:
            self._parts = max(0, self._parts - 1)
            if not self._parts:
                self._ended = self._clock()
            self._changed()

    def stop(self) -> None:
        """The run is over, whatever has not ended."""
        with self._lock:
            if self._parts:
                self._parts = 0
                self._ended = self._clock()
                self._changed()

    def _kind(self, kind: str) -> Kind:
        return self._kinds.setdefault(kind, Kind())

    def _changed(self) -> None:
        self._updated = self._clock()
        self.version += 1

    # -- events ------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Something happened."""
        with self._lock:
            match event:
                case TaskStarted():
                    self._begun(event)
                case TaskProgress():
                    self._stepped(event)
                case TaskEnded(result, job, _, shape):
                    self._task_ended(result, job, shape)
                case WorkerState():
                    self._worker_changed(event)
                case ModelFetching(model, done, total):
                    self._downloads[model] = Download(model, done, total)
                    if done >= total:
                        del self._downloads[model]
                case TasksWait(of, reason):
                    self._waits.pop(of, None)
                    if reason is not None:
                        self._waits[of] = reason
                case DevicesNotUsed(node, None):
                    self._not_used = [one for one in self._not_used if one[0] != node]
                case DevicesNotUsed(node, str(why)):
                    if (node, why) not in self._not_used:
                        self._not_used.append((node, why))
                case _:
                    return
            self._changed()

    def _worker(self, name: str) -> Worker:
        return self._workers.setdefault(name, Worker(name, state=READY))

    def _begun(self, event: TaskStarted) -> None:
        worker, now = self._worker(event.worker), self._ticks()
        if not worker.tasks:
            self._forecast.speeds.began(worker.name, now)
        worker.tasks[(event.job, event.task_id)] = event.shape
        self._given.setdefault((event.job, event.task_id), []).append(worker)
        worker.kind = event.shape.kind
        kind = self._kind(event.shape.kind)
        kind.began = now if kind.began is None else kind.began

    def _stepped(self, event: TaskProgress) -> None:
        worker = self._worker(event.worker)
        key = (event.job, event.task_id)
        worker.stepping = (key, event.done, event.total, event.together)

    def _task_ended(self, result: Result, job: int, shape: TaskShape) -> None:
        now, key = self._ticks(), (job, result.task_id)
        for worker in self._given.pop(key, ()):
            if worker.tasks.pop(key, None) is None:
                continue
            if worker.stepping is not None and worker.stepping[0] == key:
                worker.stepping = None
            if worker.name != result.worker or result.status != "done":
                self._forecast.speeds.lost(worker.name, now)
            else:
                self._forecast.ended(worker, shape, now)
        self._settle(result, shape)
        if result.status == "done":
            self._kind(shape.kind).came(now)

    def _settle(self, result: Result, shape: TaskShape, was_open: bool = True) -> None:
        """A task has its result."""
        kind = self._kind(shape.kind)
        if result.status == "skipped":
            self._already_done += 1
            if was_open:  # as one of those that were expected
                kind.settle(shape)
                kind.total -= 1
            return
        if was_open:
            kind.settle(shape)
        else:
            kind.total += 1
        worker = self._workers.get(result.worker or "")
        if result.status == "done":
            kind.done += 1
            if worker is not None:
                worker.done += 1
        elif result.status in ("timeout", "interrupted"):
            kind.not_tried += 1
        else:
            kind.failed += 1
            if worker is not None:
                worker.failed += 1
            self._failures.append(
                Failure(result.task_id, result.status, result.cause, result.error, result.worker)
            )

    def _worker_changed(self, event: WorkerState) -> None:
        worker, now = self._worker(event.worker), self._ticks()
        worker.state = event.state
        worker.kind = event.kind or worker.kind
        worker.tasks.clear()
        worker.stepping = None
        if event.state == READY:
            self._forecast.loaded(worker, now)
        elif worker.is_there and worker.starting is None:
            worker.starting = now

    # -- how it stands -------------------------------------------------------------------

    def counts(self) -> tuple[int, int]:
        """How many tasks have ended, in whichever way, and how many there are."""
        with self._lock:
            kinds = self._kinds.values()
            ended = sum(kind.done + kind.failed + kind.not_tried for kind in kinds)
            return ended, sum(kind.total + kind.expected for kind in kinds)

    @property
    def has_begun(self) -> bool:
        """It is known what is to be done: workers may be started before."""
        with self._lock:
            return bool(self._kinds)

    def status(self) -> RunStatus:
        """The run at this moment."""
        with self._lock:
            self._mind_the_memory()
            pid, host, command = self._process
            if not self._parts and (look := self.headway.look) is not None:
                return RunStatus(
                    "running",
                    str(look),
                    self._started,
                    self._updated,
                    pid=pid,
                    host=host,
                    command=command,
                    server=self._server,
                    folder=self._folder,
                )
            kinds = tuple(self._kind_status(name, kind) for name, kind in self._shown_kinds())
            return RunStatus(
                self._state(),
                self._phase(),
                self._started,
                self._updated,
                self._ended,
                kinds,
                self._already_done,
                self._seconds_left(kinds),
                tuple(self._worker_status(worker) for worker in self._workers.values()),
                tuple(self._downloads.values()),
                tuple(self._failures),
                pid,
                host,
                command,
                self._server,
                self._folder,
                " ".join(self._waits.values()) if self._waits and self._ended is None else None,
                tuple(why for _, why in self._not_used),
            )

    def _mind_the_memory(self) -> None:
        now = self._ticks()
        if self._memory_at is None or now - self._memory_at >= MEMORY_EVERY:
            self._memory_at = now
            for worker in self._workers.values():
                if worker.device is not None:
                    worker.memory = self._look_at_memory([worker.device])

    def _shown_kinds(self) -> list[tuple[str, Kind]]:
        """Kinds that have tasks, in the order in which they are worked on."""
        order = list(PHASES)
        known = [(name, kind) for name, kind in self._kinds.items() if kind.total + kind.expected]
        return sorted(known, key=lambda one: order.index(one[0]) if one[0] in order else 99)

    def _state(self) -> State:
        if self._ended is None:
            return "running"
        if any(kind.not_tried or kind.left for kind in self._kinds.values()):
            return "interrupted"
        failed = any(kind.failed for kind in self._kinds.values())
        return "failed" if failed else "completed"

    def _phase(self) -> str:
        if self._ended is not None:
            return self._state()
        at_work = {shape.kind for w in self._workers.values() for shape in w.tasks.values()}
        words = [word for kind, word in PHASES.items() if kind in at_work]
        if words:
            return " and ".join(words)
        if self._downloads:
            return "downloading"
        left = [name for name, kind in self._shown_kinds() if kind.left]
        if not left:
            return "recording"
        is_there = any(w.state == READY for w in self._workers.values())
        return PHASES.get(left[0], left[0]) if is_there else "loading"

    def _kind_status(self, name: str, kind: Kind) -> KindStatus:
        running = {
            key for w in self._workers.values() for key, s in w.tasks.items() if s.kind == name
        }
        left = None
        if self._ended is None:
            left = self._forecast.seconds_for(name, kind, self._workers.values(), self._ticks())
        return KindStatus(
            name,
            kind.total + kind.expected,
            kind.done,
            kind.failed,
            kind.not_tried,
            len(running),
            kind.per_minute(self._ticks()),
            left,
        )

    def _seconds_left(self, kinds: Sequence[KindStatus]) -> float | None:
        if self._ended is not None:
            return None
        left = {kind.kind: kind.seconds_left for kind in kinds}
        return self._forecast.seconds_for_all(left, self._workers.values())

    def _worker_status(self, worker: Worker) -> WorkerStatus:
        key, step, steps, together = worker.stepping or (None, 0, 0, 1)
        if key not in worker.tasks:
            key = next(iter(worker.tasks), None)
            step, steps, together = 0, 0, 1
        total = worker.device.memory if worker.device is not None else 0
        return WorkerStatus(
            worker.name,
            worker.state,
            worker.kind,
            self._models.get(worker.kind or ""),
            worker.tasks[key].loras if key is not None else (),
            key[1] if key is not None else None,
            together,
            step,
            steps,
            worker.done,
            worker.failed,
            worker.memory,
            total or None,
        )


def _command() -> str:
    words = [Path(sys.executable).name, *sys.argv] if sys.argv and sys.argv[0] else []
    return shlex.join(words)[:MOST_LETTERS]
