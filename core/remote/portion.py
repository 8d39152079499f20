"""Tasks that go to a daemon as one of its jobs, and the thread that follows that job."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from loguru import logger

from core.details import detail
from core.engine.job_run import JobRun
from core.engine.task_state import ActiveAttempt, TaskState
from core.remote.protocol import ENGINE_ROUTE
from core.remote.server import SentEvent, Server, ServerBusy, ServerLost, ServerRefusal

T = TypeVar("T")
PAUSE = 0.5  # seconds between looks for it
GONE = 404
# Answers to a job that is no request to the daemon: each of its tasks could only fail alone.
NOT_UNDERSTOOD = (400, 404, 405, 415, 422)
OF_ANY_VERSION = ("too_many_tasks", "invalid_json")  # other reasons for them
_NEEDED: Mapping[str, frozenset[str]] = {
    "job": frozenset(),
    "step": frozenset({"task_id", "worker", "step", "steps"}),
    "task": frozenset(
        {"position", "worker", "status", "success", "error", "cause", "attempts", "elapsed"}
    ),
}
"""Of an event, what is read here."""


@dataclass(eq=False)
class SentTask:
    """A task that a daemon has.

    Attributes:
        name: in the daemon's job.
        active: the attempt in this engine's records, once the daemon has begun it.
        begun: its lease is recorded.
        view: its result as the daemon tells it.
        over: nothing more is to be done about it here.
    """

    position: int
    name: str
    task: TaskState
    active: ActiveAttempt | None = None
    begun: bool = False
    view: Mapping[str, Any] | None = None
    over: bool = False


@dataclass(eq=False)
class Portion:
    """One job of a daemon.

    Attributes:
        key: by which a second request is known for the first one.
        id: the daemon's name for the job, once it has it.
        open: tasks about which something is still to be done here.
        cancelled: no more of it is to be started.
        dropped: nobody wants to hear of it any more.
    """

    run: JobRun
    tasks: list[SentTask]
    open: int
    key: str = field(default_factory=lambda: uuid4().hex)
    id: str | None = None
    cancelled: bool = False
    dropped: bool = False

    @classmethod
    def of(cls, run: JobRun, tasks: list[TaskState]) -> "Portion":
        seen: set[str] = set()
        sent = []
        for position, task in enumerate(tasks):
            name = task.admitted.task_id
            while name in seen:
                name = f"{task.admitted.task_id[:180]}#{position}"
            seen.add(name)
            sent.append(SentTask(position, name, task))
        return cls(run, sent, len(sent))


class ServerGone(Exception):
    """The daemon did not come back in time."""


class OtherVersion(Exception):
    """The daemon is of another version of the program: one does not understand the other."""

    def __init__(self, how: str = "what it says is not understood here") -> None:
        super().__init__(how)


class Patience:
    """Asks a daemon again and again while it is away or has no room.

    Args:
        seconds: for a daemon that does not answer, or is about to leave.
        ending: set when nobody waits for answers any more.
    """

    def __init__(self, server: Server, seconds: float, ending: threading.Event) -> None:
        self.server = server
        self._seconds = seconds
        self._ending = ending
        self._told = threading.Lock()
        self._missed = False  # and nothing was heard of it since
        self._misses = 0

    def ask(self, call: Callable[[], T], wanted: Callable[[], bool] = lambda: True) -> T:
        """What the daemon answers.

        Args:
            wanted: whether somebody still waits for it.

        Raises:
            ServerGone: it did not answer for so long, or nobody waits any more.
            ServerRefusal: it does not want to.
        """
        since = time.monotonic()
        while True:
            misses = self._misses
            try:
                answer = call()
            except ServerLost as error:
                reason, pause, counts = str(error), PAUSE, True
            except ServerBusy as error:
                # Room comes with the end of others' tasks, however long these take.
                reason, pause, counts = str(error), min(error.seconds, 5.0), error.leaving
            else:
                if self._misses == misses:  # a stream may have broken off at its end
                    self.found()
                return answer
            now = time.monotonic()
            since = since if counts else now
            if now - since > self._seconds:
                raise ServerGone(reason)
            if counts:
                self.miss(reason)
            if self._ending.wait(pause) or not wanted():
                raise ServerGone(reason)

    def miss(self, reason: str) -> None:
        """Say once that the daemon is away."""
        with self._told:
            self._misses += 1
            if not self._missed and not self._ending.is_set():
                self._missed = True
                logger.warning(
                    f"The server at {self.server.name} does not answer ({reason}); it has "
                    f"{self._seconds:g} s to come back."
                )

    def found(self) -> None:
        """Say that it is there again."""
        with self._told:
            if self._missed:
                self._missed = False
                logger.info("The server is there again.")


@dataclass(frozen=True)
class Told:
    """Whom a follower tells what; each may be called from its thread.

    Attributes:
        waits: what keeps the daemon from going on, or None for nothing.
        step: what the daemon says of a task that runs.
        result: what became of a task.
        ended: no more will come.
        forgotten: the daemon knows the job no more.
        refused: it did not take the job.
        gone: it did not come back in time.
        other_version: it is of another version of the program; and how that was noticed.
    """

    waits: Callable[[Portion, str | None], None]
    step: Callable[[Portion, Mapping[str, Any]], None]
    result: Callable[[Portion, Mapping[str, Any]], None]
    ended: Callable[[Portion], None]
    forgotten: Callable[[Portion], None]
    refused: Callable[[Portion, str], None]
    gone: Callable[[str], None]
    other_version: Callable[[Portion, str], None]


class Follower:
    """Hands a portion in and tells what the daemon says of it, in a thread of its own.

    Args:
        after: of the portion before, to be handed in first: a daemon does jobs in their order.
    """

    def __init__(
        self,
        portion: Portion,
        request: Callable[[], Mapping[str, Any]],
        patience: Patience,
        told: Told,
        after: "Follower | None" = None,
    ) -> None:
        self._handed_in = threading.Event()  # or given up
        self._before: threading.Event | None = None if after is None else after._handed_in
        self._portion = portion
        self._request = request
        self._patience = patience
        self._told = told
        self._last = ""  # the id of the last numbered event
        self.thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def _run(self) -> None:
        try:
            self._hand_in_and_follow()
        finally:
            self._handed_in.set()

    def _hand_in_and_follow(self) -> None:
        portion, server = self._portion, self._patience.server
        try:
            headers = {"Idempotency-Key": portion.key}
            request = self._patience.ask(self._request, self._wanted)
            if self._before is not None:
                self._before.wait()
            job = self._patience.ask(lambda: self._hand_in(request, headers), self._wanted)
            if not isinstance(job, dict) or "id" not in job:
                raise OtherVersion
            portion.id = str(job["id"])
            self._handed_in.set()
            if portion.dropped:
                drop(server, portion)
            elif portion.cancelled:
                cancel(server, portion)
            while not self._patience.ask(self._follow, self._wanted):
                continue
        except ServerRefusal as error:
            if error.status == GONE and portion.id is not None:
                self._told.forgotten(portion)
            else:
                self._told.refused(portion, f"The server refuses the task: {error}")
        except ServerGone as error:
            if self._wanted():
                self._told.gone(str(error))
        except OtherVersion as error:  # not of the one that was asked at the beginning
            if self._wanted():
                self._told.other_version(portion, str(error))
        except Exception as error:  # an answer that this version does not understand
            logger.exception("The server's answer could not be read; this is a defect.")
            self._told.refused(portion, f"The server's answer could not be read ({error!r}).")

    def _hand_in(self, request: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        """The daemon's job for the portion.

        Raises:
            OtherVersion: it does not know what is asked for.
        """
        try:
            return self._patience.server.call("POST", f"{ENGINE_ROUTE}/jobs", request, headers)
        except ServerRefusal as error:
            if error.status in NOT_UNDERSTOOD and error.code not in OF_ANY_VERSION:
                raise OtherVersion(f"it refuses what this one asks for: {error}") from None
            raise

    def _wanted(self) -> bool:
        return not self._portion.dropped

    def _follow(self) -> bool:
        """Follow until the stream breaks off; True at the end of the job.

        Raises:
            ServerLost: it broke off before it said anything.
            OtherVersion: it says what cannot be understood.
        """
        portion = self._portion
        heard = False
        try:
            for event in self._patience.server.events(f"/v1/jobs/{portion.id}/events", self._last):
                heard = True
                self._patience.found()
                self._last = event.id or self._last
                self._check(event)
                if event.kind == "job":
                    reason = event.data.get("waiting_for")
                    self._told.waits(portion, None if reason is None else str(reason))
                elif event.kind == "step":
                    self._told.step(portion, event.data)
                elif event.kind == "task":
                    self._told.result(portion, event.data)
                elif event.kind == "end":
                    self._told.ended(portion)
                    return True
                if portion.dropped:
                    return True
        except ServerLost as error:
            if not heard:
                raise
            self._patience.miss(str(error))
        else:
            if not heard:
                raise ServerLost("it ended the connection")
            self._patience.miss("it ended the connection")
        return False

    def _check(self, event: SentEvent) -> None:
        needed = _NEEDED.get(event.kind)
        if needed is None:
            return
        if not isinstance(event.data, dict) or not needed <= event.data.keys():
            raise OtherVersion
        if event.kind == "task" and event.data["position"] not in range(len(self._portion.tasks)):
            raise OtherVersion


def cancel(server: Server, portion: Portion) -> None:
    """Have the daemon start no more of a portion; it is told once."""
    if portion.id is not None:
        _tell(server, "DELETE", f"/v1/jobs/{portion.id}")


def drop(server: Server, portion: Portion) -> None:
    """Have the daemon end a portion and remove all that it keeps of it."""
    if portion.id is not None:
        _tell(server, "DELETE", f"{ENGINE_ROUTE}/jobs/{portion.id}")


def _tell(server: Server, method: str, path: str) -> None:
    """Tell a daemon something that it finds out itself where it cannot be reached now."""
    try:
        server.call(method, path, timeout=2.0)
    except (ServerLost, ServerBusy, ServerRefusal) as error:
        detail(f"{method} {path}: {error}")
