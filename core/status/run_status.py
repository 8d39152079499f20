"""How a run stands at one moment: what views show and `status.json` says (docs/WATCHING.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, get_args

PROGRAM = "multi-gpu-image-generation"
FORMAT = 1  # of the document; raised when a field changes its meaning or goes

State = Literal["running", "completed", "failed", "interrupted"]
"""completed: all that was asked for is there. failed: it ended, and something is not there, or it
broke down. interrupted: it was ended early; the same command continues it."""

PHASES: Mapping[str, str] = {"generate": "drawing", "edit": "editing", "score": "scoring"}
NOUNS: Mapping[str, str] = {"generate": "pictures", "edit": "edits", "score": "scores"}


@dataclass(frozen=True)
class KindStatus:
    """Tasks of one kind.

    Attributes:
        kind: generate, edit or score.
        total: what this run has to do; what an earlier one has done is no part of it.
        not_tried: ended without a try, or thrown away, because the run ended early.
        running: workers have them.
        per_minute: results a minute of late; None while nobody knows.
        seconds_left: until all of the kind have ended, with the workers that it has.
    """

    kind: str
    total: int
    done: int = 0
    failed: int = 0
    not_tried: int = 0
    running: int = 0
    per_minute: float | None = None
    seconds_left: float | None = None

    @property
    def ended(self) -> int:
        """Tasks that came to their end, in whichever way."""
        return self.done + self.failed


@dataclass(frozen=True)
class WorkerStatus:
    """One worker.

    Attributes:
        name: such as gpu0.
        state: a few words, such as `ready` or `loading the model`.
        kind: of the tasks that its model is for.
        loras: names of those that its task uses.
        task: what it works on; None for one without a task.
        together: how many tasks it works on as one.
        step: of `steps`, both 0 until the first is told.
        done: its results in this run.
        failed: its tasks that failed.
        memory_used: bytes in use on its GPUs, by whomever; None where nobody says.
        memory_total: bytes of its GPUs; None without.
    """

    name: str
    state: str = ""
    kind: str | None = None
    model: str | None = None
    loras: tuple[str, ...] = ()
    task: str | None = None
    together: int = 1
    step: int = 0
    steps: int = 0
    done: int = 0
    failed: int = 0
    memory_used: int | None = None
    memory_total: int | None = None


@dataclass(frozen=True)
class Download:
    """Bytes of a hub's model that are on this machine, of those that are needed."""

    model: str
    done: int
    total: int


@dataclass(frozen=True)
class Failure:
    """A task that failed; the fields are those of its result (`core.tasks.Result`)."""

    task_id: str
    status: str
    cause: str | None = None
    error: str | None = None
    worker: str | None = None


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment. Times are Unix times.

    Attributes:
        phase: what goes on, in a word or two, such as `loading`, `drawing` or `scoring`.
        updated: when something of this last changed.
        kinds: in the order in which they are worked on.
        already_done: tasks that an earlier run has done, unchanged since.
        seconds_left: until the end; None while nobody knows.
        failures: the newest ones, the oldest of them first.
        pid, host, command: of the process that runs it.
        server: the daemon whose workers do the work; None for workers of its own.
        folder: where results lie; None for any place.
        waiting_for: what keeps tasks from going on, in a sentence, such as that all workers are
            drained; None mostly.
        not_used: machines of a cluster, or GPUs of them, that the run does without, each with why.
    """

    state: State
    phase: str
    started: float
    updated: float
    ended: float | None = None
    kinds: tuple[KindStatus, ...] = ()
    already_done: int = 0
    seconds_left: float | None = None
    workers: tuple[WorkerStatus, ...] = ()
    downloads: tuple[Download, ...] = ()
    failures: tuple[Failure, ...] = ()
    pid: int = 0
    host: str = ""
    command: str = ""
    server: str | None = None
    folder: str | None = None
    waiting_for: str | None = None
    not_used: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(kind.total for kind in self.kinds)

    @property
    def done(self) -> int:
        return sum(kind.done for kind in self.kinds)

    @property
    def failed(self) -> int:
        return sum(kind.failed for kind in self.kinds)

    @property
    def not_tried(self) -> int:
        return sum(kind.not_tried for kind in self.kinds)

    @property
    def running(self) -> int:
        return sum(kind.running for kind in self.kinds)

    @property
    def per_minute(self) -> float | None:
        """Results a minute of late, of whatever kind."""
        known = [kind.per_minute for kind in self.kinds if kind.per_minute is not None]
        return sum(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """The document that `status.json` holds."""
        left = self.seconds_left
        return {
            "program": PROGRAM,
            "format": FORMAT,
            "state": self.state,
            "phase": self.phase,
            "started": iso(self.started),
            "updated": iso(self.updated),
            "ended": None if self.ended is None else iso(self.ended),
            "total": self.total,
            "done": self.done,
            "failed": self.failed,
            "not_tried": self.not_tried,
            "running": self.running,
            "waiting": self.total - self.done - self.failed - self.not_tried - self.running,
            "already_done": self.already_done,
            "per_minute": _rounded(self.per_minute),
            "seconds_left": _rounded(left),
            "expected_end": None if left is None else iso(self.updated + left),
            "kinds": [_kind(kind) for kind in self.kinds],
            "workers": [_listed(worker) for worker in self.workers],
            "downloads": [vars(download) for download in self.downloads],
            "failures": [vars(failure) for failure in self.failures],
            "pid": self.pid,
            "host": self.host,
            "command": self.command,
            "server": self.server,
            "folder": self.folder,
            "waiting_for": self.waiting_for,
            "not_used": list(self.not_used),
        }

    @classmethod
    def from_json(cls, document: Any) -> "RunStatus":
        """What a document says; fields that a newer program adds are passed over.

        Raises:
            ValueError: it is none of this program's, or of a format that is not known here.
        """
        if not isinstance(document, dict) or document.get("program") != PROGRAM:
            raise ValueError("it was not written by this program")
        if document.get("format") != FORMAT:
            raise ValueError(
                f"it has format {document.get('format')!r}, and this program reads {FORMAT}"
            )
        try:
            return cls(
                _state(document["state"]),
                str(document["phase"]),
                from_iso(document["started"]),
                from_iso(document["updated"]),
                None if document["ended"] is None else from_iso(document["ended"]),
                _each(KindStatus, document["kinds"]),
                int(document["already_done"]),
                document["seconds_left"],
                _each(WorkerStatus, document["workers"]),
                _each(Download, document["downloads"]),
                _each(Failure, document["failures"]),
                int(document["pid"]),
                str(document["host"]),
                str(document["command"]),
                document["server"],
                document["folder"],
                document.get("waiting_for"),  # older files have none
                tuple(map(str, document.get("not_used", ()))),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"a field is missing or of another type ({error!r})") from None


T = TypeVar("T")


def _each(kind: type[T], listed: Sequence[Mapping[str, Any]]) -> tuple[T, ...]:
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return tuple(kind(**{n: _hashable(one[n]) for n in names if n in one}) for one in listed)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _state(value: Any) -> State:
    if value not in get_args(State):
        raise ValueError(f"its state is {value!r}")
    state: State = value
    return state


def _kind(kind: KindStatus) -> dict[str, Any]:
    return {
        **vars(kind),
        "per_minute": _rounded(kind.per_minute),
        "seconds_left": _rounded(kind.seconds_left),
    }


def _listed(worker: WorkerStatus) -> dict[str, Any]:
    return {**vars(worker), "loras": list(worker.loras)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def iso(at: float) -> str:
    """A Unix time in ISO 8601, with this machine's zone, such as 2026-11-27T10:00:00+00:00."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="seconds")


def from_iso(text: str) -> float:
    """The Unix time that `iso` wrote."""
    return datetime.fromisoformat(text).timestamp()
