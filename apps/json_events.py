"""`--json`: what happens in a run, a line of JSON each, on standard output. See docs/WATCHING.md.

Names and meanings of fields stay; new ones may come, and so may new events.
"""

import json
import sys
import threading
import time
from typing import Any, Literal, cast

from typing_extensions import TypedDict

from core.events import (
    DevicesNotUsed,
    Event,
    ModelFetching,
    TaskEnded,
    TaskProgress,
    TaskStarted,
    WorkerState,
)
from core.status.run_status import RunStatus, State, iso
from core.status.tracker import RunTracker
from core.tasks import Result

EVERY = 1.0  # seconds between two events `progress`


class RunStarted(TypedDict):
    """The first event: what is to be done.

    Attributes:
        time: in ISO 8601 with a zone, as all times.
        total: tasks of this run; of scores, those that may come to be asked for.
        already_done: tasks that an earlier run has done.
        folder: where results lie.
        server: the daemon whose workers do the work; null for workers of its own.
    """

    event: Literal["start"]
    time: str
    total: int
    already_done: int
    folder: str | None
    server: str | None


class WorkerChanged(TypedDict):
    """A worker says of itself, in a few words, what it does: starting, loading the model, ready…

    Attributes:
        kind: of the tasks that its model is for: generate, edit or score.
    """

    event: Literal["worker"]
    time: str
    worker: str
    state: str
    kind: str | None


class NotUsed(TypedDict):
    """A machine of a cluster, or GPUs of it, that the run does without.

    Attributes:
        node: its name.
        why: that name and the reason; null where it has joined the run.
    """

    event: Literal["not_used"]
    time: str
    node: str
    why: str | None


class Downloading(TypedDict):
    """Bytes of a hub's model that are here, of those that are needed."""

    event: Literal["download"]
    time: str
    model: str
    done: int
    total: int


class Started(TypedDict):
    """A worker was given a task. It may come again, where the task is tried again.

    Attributes:
        steps: that it takes; 0 where that is the model's affair, and for tasks without steps.
    """

    event: Literal["task_started"]
    time: str
    task_id: str
    kind: str
    worker: str
    steps: int
    loras: list[str]


class Stepped(TypedDict):
    """Steps of a task that runs; twice a second at most, and never of short ones.

    Attributes:
        together: how many tasks the worker runs as one.
    """

    event: Literal["step"]
    time: str
    task_id: str
    worker: str
    step: int
    steps: int
    together: int


class Ended(TypedDict):
    """A task has its result, of this run or of an earlier one: one event for each task.

    All but the first three fields are those of `core.tasks.Result`, as in results.jsonl.
    """

    event: Literal["task"]
    time: str
    kind: str
    success: bool
    position: int
    task_id: str
    status: str
    output_path: str | None
    elapsed: float
    error: str | None
    worker: str | None
    attempts: int
    seed: int | None
    cause: str | None


class Progress(TypedDict):
    """How the run stands; once a second at most.

    Attributes:
        phase: such as loading, drawing, editing or scoring.
        per_minute: results a minute of late; null while nobody knows.
        seconds_left: until the end; null while nobody knows.
    """

    event: Literal["progress"]
    time: str
    phase: str
    total: int
    done: int
    failed: int
    per_minute: float | None
    seconds_left: float | None


class RunEnded(TypedDict):
    """The last event.

    Attributes:
        state: completed, failed (something is not there) or interrupted.
        not_tried: tasks that the same command begins with next time.
        seconds: that the run took.
    """

    event: Literal["end"]
    time: str
    state: State
    total: int
    done: int
    failed: int
    not_tried: int
    already_done: int
    seconds: float
    folder: str | None


class Refused(TypedDict):
    """Nothing ran: the input, a setting or the folder cannot be used as it stands."""

    event: Literal["error"]
    time: str
    message: str


AnyEvent = (
    RunStarted
    | WorkerChanged
    | Downloading
    | NotUsed
    | Started
    | Stepped
    | Ended
    | Progress
    | RunEnded
    | Refused
)


def print_event(event: AnyEvent) -> None:
    """Write an event to standard output, at once."""
    sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_refusal(message: str) -> None:
    """Say that nothing ran, and why."""
    print_event({"event": "error", "time": _now(), "message": message})


class JsonView:
    """Events on standard output; log lines go to standard error as ever."""

    def __init__(self, tracker: RunTracker, every: float = EVERY) -> None:
        self._tracker = tracker
        self._every = every
        self._told = time.monotonic()
        self._started = False
        self._first: list[AnyEvent] = []  # of before it was known what is to be done
        self._lock = threading.RLock()

    def __enter__(self) -> "JsonView":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._start()
            print_event(_end(self._tracker.status()))

    def settled(self, result: Result, kind: str) -> None:
        """A result was known before anything ran."""
        with self._lock:
            self._first.append(_ended(result, kind))

    def show(self, event: Event) -> None:
        with self._lock:
            told = _told(event)
            if told is None:
                return
            if not (self._started or self._tracker.has_begun):
                self._first.append(told)
                return
            self._start()
            print_event(told)
            now = time.monotonic()
            if now - self._told >= self._every:
                self._told = now
                print_event(_progress(self._tracker.status()))

    def _start(self) -> None:
        """The first event, once it is known what is to be done."""
        if self._started:
            return
        self._started = True
        status = self._tracker.status()
        print_event(
            {
                "event": "start",
                "time": iso(status.started),
                "total": status.total,
                "already_done": status.already_done,
                "folder": status.folder,
                "server": status.server,
            }
        )
        for one in self._first:
            print_event(one)


def _told(event: Event) -> AnyEvent | None:
    match event:
        case TaskStarted(task_id, worker, _, steps, shape):
            return {
                "event": "task_started",
                "time": _now(),
                "task_id": task_id,
                "kind": shape.kind,
                "worker": worker,
                "steps": steps,
                "loras": list(shape.loras),
            }
        case TaskProgress(task_id, worker, done, total, together):
            return {
                "event": "step",
                "time": _now(),
                "task_id": task_id,
                "worker": worker,
                "step": done,
                "steps": total,
                "together": together,
            }
        case TaskEnded():
            return _ended(event.result, event.shape.kind)
        case WorkerState(worker, state, kind):
            return {
                "event": "worker",
                "time": _now(),
                "worker": worker,
                "state": state,
                "kind": kind,
            }
        case ModelFetching(model, done, total):
            return {
                "event": "download",
                "time": _now(),
                "model": model,
                "done": done,
                "total": total,
            }
        case DevicesNotUsed(node, why):
            return {"event": "not_used", "time": _now(), "node": node, "why": why}
    return None


def _ended(result: Result, kind: str) -> Ended:
    told: Any = {"event": "task", "time": _now(), "kind": kind, **result.as_dict()}
    return cast(Ended, told)


def _progress(status: RunStatus) -> Progress:
    told = status.as_json()
    return {
        "event": "progress",
        "time": _now(),
        "phase": status.phase,
        "total": status.total,
        "done": status.done,
        "failed": status.failed,
        "per_minute": told["per_minute"],
        "seconds_left": told["seconds_left"],
    }


def _end(status: RunStatus) -> RunEnded:
    ended = time.time() if status.ended is None else status.ended
    return {
        "event": "end",
        "time": iso(ended),
        "state": "interrupted" if status.state == "running" else status.state,
        "total": status.total,
        "done": status.done,
        "failed": status.failed,
        "not_tried": status.not_tried,
        "already_done": status.already_done,
        "seconds": round(max(0.0, ended - status.started), 1),
        "folder": status.folder,
    }


def _now() -> str:
    return iso(time.time())
