"""An engine whose workers are a daemon's: jobs in, results out, as from one's own.

Everything that belongs to the output folder happens here, in the same way as with workers of
one's own: a lease is recorded when the daemon begins a task, its result is fetched, written and
recorded, and only then the daemon's copy is removed. One thread owns the fate of every task; each
portion of tasks that the daemon has is followed by a thread of its own.
"""

import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from loguru import logger

from core.checkpoints.lora_files import name_of
from core.devices.device import Device
from core.engine.attempts import WorkerLoss
from core.engine.job import CANCELLED, INTERRUPTED, Job
from core.engine.job_run import JobRun
from core.engine.retry import RetryRules
from core.engine.task_engine import CLOSED, TaskEngine
from core.engine.task_state import ActiveAttempt, TaskState
from core.errors import InputError
from core.events import Listener, TaskProgress, WorkerState, ignore
from core.lora_stack import CheckedLora
from core.messages import Done, Failed, KeepWay, Lease
from core.remote.helpers import Helpers
from core.remote.portion import (
    Follower,
    Patience,
    Portion,
    SentTask,
    ServerGone,
    Told,
    cancel,
    drop,
)
from core.remote.protocol import MOST_PRIORITY
from core.remote.sent_files import SentFiles
from core.remote.server import Server, ServerRefusal
from core.store.outputs import FATAL_ERRNOS
from core.store.relabel import OtherResult, relabelled
from core.tasks import Status

if TYPE_CHECKING:
    from core.engine.served_model import ServedModel
    from core.engine.snapshot import EngineSnapshot

Outcome = Literal["failed", "quarantined"]
SIZES = (16, 64, 256)  # tasks of a job's first portions, and of all others
MOST_OUT = 2000  # tasks of one job that the daemon has
MOST_PORTIONS = 16
FETCHERS = 4
END_PATIENCE = 5.0  # seconds for followers at the end
GONE = "Not finished: the server went away. Run again to continue."


@dataclass(eq=False)
class _Lane:
    """A job's tasks on their way to the daemon."""

    run: JobRun
    pending: deque[TaskState] = field(default_factory=deque)
    portions: list[Portion] = field(default_factory=list)
    sent: int = 0  # portions so far

    @property
    def out(self) -> int:
        return sum(portion.open for portion in self.portions)


class RemoteEngine(TaskEngine):
    """Has a daemon do the work, and keeps the record of it here.

    Args:
        server: the daemon.
        devices: of the daemon's workers.
        rules: how often a task is tried that came to nothing through no fault of its own.
        timeout: seconds for a daemon that does not answer, or is about to leave.
        listener: told of the tasks of jobs without a listener of their own.
    """

    def __init__(
        self,
        server: Server,
        devices: Sequence[Device],
        rules: RetryRules,
        timeout: float,
        listener: Listener = ignore,
    ) -> None:
        super().__init__(rules, listener)
        self._server = server
        self._devices = devices
        self._client = uuid4().hex[:12]  # jobs of one process share its part of the daemon
        self._files = SentFiles(server)
        self._ending = threading.Event()
        self._patience = Patience(server, timeout, self._ending)
        self._lanes: dict[int, _Lane] = {}
        self._over: tuple[Status, str] | None = None  # the result of all tasks from now on
        # SimpleQueue: a signal handler may put, too.
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closing = False
        self._helpers = Helpers(FETCHERS)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._told = Told(
            step=lambda *told: self._post(lambda: self._step(*told)),
            result=lambda *told: self._post(lambda: self._result(*told)),
            ended=lambda portion: self._post(lambda: self._ended(portion)),
            forgotten=lambda portion: self._post(lambda: self._forgotten(portion)),
            refused=lambda *told: self._post(lambda: self._refused(*told)),
            gone=lambda reason: self._post(lambda: self._server_gone(reason)),
        )

    # -- called from other threads -----------------------------------------------

    def start(self) -> None:
        self._thread.start()
        for device in self._devices:
            self._post(partial(self._listener, WorkerState(device.label, "ready")))

    def add_model(self, model: "ServedModel") -> None:
        """Do nothing: the daemon has it."""

    def expect(self, job: Job, model: str, tasks: int) -> None:
        """Do nothing: the daemon shares its workers out as tasks come."""

    def stop(self, at_once: bool = False) -> None:
        """End all jobs here. The daemon drops what it has of them."""
        del at_once  # what runs there is the daemon's
        if not self._thread.is_alive():
            return
        self._post(self._close)
        self._thread.join()

    def warm(self, name: str) -> None:
        """Do nothing: the daemon loads what its tasks ask for, and keeps it."""

    def unload(self, name: str) -> None:
        """Do nothing: others may be about to use the model."""

    def load_loras(
        self, name: str, loras: Sequence[CheckedLora], pin: bool = False
    ) -> "Future[None]":
        """Have the daemon's workers hold LoRAs of its folder that have these names."""
        action: KeepWay = "pin" if pin else "load"
        return self._ask_for_loras(name, action, [lora.path for lora in loras])

    def unload_loras(
        self, name: str, hashes: Collection[str], paths: Collection[str] = ()
    ) -> "Future[None]":
        """Have the daemon's workers let go of LoRAs of these names."""
        return self._ask_for_loras(name, "unload", paths)

    def _ask_for_loras(self, name: str, action: KeepWay, paths: Collection[str]) -> "Future[None]":
        answer: Future[None] = Future()
        try:
            for lora in dict.fromkeys(map(name_of, paths)):
                request = {"name": lora, "action": action, "kind": name}
                ask = partial(self._server.call, "POST", "/v1/loras", request)
                self._patience.ask(ask)
        except (ServerGone, ServerRefusal) as error:
            refusal = f"The server at {self._server.name} does not {action} a LoRA: {error}"
            answer.set_exception(InputError(refusal))
        else:
            answer.set_result(None)
        return answer

    def drain(self, worker: str) -> None:
        """Have the daemon give one of its workers nothing more."""
        self._ask_later(f"/v1/workers/{worker}/drain")

    def undrain(self, worker: str) -> None:
        """Have one of the daemon's workers come back."""
        self._ask_later(f"/v1/workers/{worker}/undrain")

    def snapshot(self) -> "Future[EngineSnapshot]":
        """Nothing: how the daemon's workers stand says its `/v1/workers`."""
        from core.engine.snapshot import EngineSnapshot

        told: Future[EngineSnapshot] = Future()
        told.set_result(EngineSnapshot())
        return told

    @property
    def lora_counts(self) -> tuple[int, int]:
        """None: workers that are shared load LoRAs for others, too."""
        return 0, 0

    @property
    def device_waits(self) -> list[float]:
        return []

    @property
    def waits_in_step(self) -> list[tuple[float, int]]:
        return []

    def _ask_later(self, path: str) -> None:
        def ask() -> None:
            try:
                self._patience.ask(lambda: self._server.call("POST", path))
            except (ServerGone, ServerRefusal) as error:
                logger.warning(f"The server does not do it ({path}): {error}")

        self._helpers.give(ask)

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.put(command)

    # -- the engine's thread -------------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._closing and not self._lanes):
                self._commands.get()()
                if self._commands.empty():
                    self._send_more()
        except BaseException as error:
            logger.exception("The engine broke down; this is a defect, please report it.")
            over: tuple[Status, str]
            over = self._over = ("failed", f"The engine broke down ({error!r}).")
            self._close_all(*over)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._ending.set()
        with self._going:
            self._gone = True
            while not self._commands.empty():
                try:
                    self._commands.get()()
                except Exception:
                    logger.exception("A command to the engine failed after its end.")
        self._helpers.give(self._files.remove)
        self._helpers.end(END_PATIENCE)

    def _close(self) -> None:
        self._closing = True
        self._over = self._over or ("interrupted", CLOSED)
        self._close_all("interrupted", INTERRUPTED)

    def _end(self) -> tuple[Status, str] | None:
        return self._over

    # -- jobs ------------------------------------------------------------------------

    def _runs(self) -> Iterable[JobRun]:
        return [lane.run for lane in self._lanes.values()]

    def _find(self, number: int) -> JobRun | None:
        lane = self._lanes.get(number)
        return None if lane is None else lane.run

    def _work_on(self, run: JobRun) -> None:
        self._lanes[run.number] = _Lane(run)

    def _queue(self, run: JobRun, task: TaskState) -> None:
        self._lanes[run.number].pending.append(task)

    def _withdraw(self, run: JobRun, model: str | None) -> None:
        """Have no more of a job's tasks begun, here or by the daemon."""
        lane = self._lanes.get(run.number)
        if lane is None or model is not None:
            return
        lane.pending.clear()
        for portion in lane.portions:
            if not portion.cancelled:
                portion.cancelled = True
                self._helpers.give(cancel, self._server, portion)

    def _finished(self, run: JobRun) -> None:
        lane = self._lanes.pop(run.number)
        for portion in lane.portions:
            self._drop(portion)

    def _server_gone(self, reason: str) -> None:
        if self._over is None:
            logger.error(f"The server at {self._server.name} is gone ({reason}).")
            over: tuple[Status, str]
            over = self._over = ("interrupted", GONE)
            self._ending.set()
            self._close_all(*over)

    # -- what goes to the daemon -----------------------------------------------------

    def _send_more(self) -> None:
        for lane in self._lanes.values():
            while (
                lane.pending
                and self._over is None
                and lane.run.job.ends_as is None
                and len(lane.portions) < MOST_PORTIONS
                and lane.out < MOST_OUT
            ):
                size = SIZES[min(lane.sent, len(SIZES) - 1)]
                size = min(size, self._server.max_tasks or size)
                first = [lane.pending.popleft() for _ in range(min(size, len(lane.pending)))]
                self._send(lane, Portion.of(lane.run, first))

    def _send(self, lane: _Lane, portion: Portion) -> None:
        lane.sent += 1
        lane.portions.append(portion)
        most = MOST_PRIORITY
        priority = max(-most, min(most, lane.run.priority))
        asked = {"priority": priority} if priority else {}  # else the usual one of the API key
        owner = f"{self._client} {lane.run.owner}"[:200]

        def request() -> Mapping[str, Any]:
            made = self._files.request
            tasks = [made(sent.task.admitted, sent.name) for sent in portion.tasks]
            suffixes = [s.task.admitted.output.file.suffix.lower() for s in portion.tasks]
            return {"tasks": tasks, **asked, "owner": owner, "suffixes": suffixes}

        follower = Follower(portion, request, self._patience, self._told)
        follower.thread.start()

    def _drop(self, portion: Portion) -> None:
        if not portion.dropped:
            portion.dropped = True
            self._helpers.give(drop, self._server, portion)

    # -- what the daemon says --------------------------------------------------------

    def _step(self, portion: Portion, told: Mapping[str, Any]) -> None:
        sent = next((s for s in portion.tasks if s.name == told["task_id"]), None)
        if sent is None or sent.over or sent.view is not None:
            return
        active = self._begin(portion, sent, str(told["worker"]))
        if active is not None and told["steps"]:
            admitted, run = sent.task.admitted, portion.run
            event = TaskProgress(
                admitted.task_id,
                active.attempt.worker,
                int(told["step"]),
                int(told["steps"]),
                job=run.number,
            )
            run.tell(event)

    def _begin(self, portion: Portion, sent: SentTask, worker: str) -> ActiveAttempt | None:
        """The attempt at a task, begun now if need be; None for a task that has its result."""
        run = portion.run
        if sent.active is None and run.has(sent.task) and run.job.closed_as is None:
            # The answer may come before `begin` returns, where the recorder's thread is fast.
            sent.active = run.attempts.begin(
                sent.task, worker, lambda _, recorded: self._begun(portion, sent, recorded)
            )
        elif sent.active is not None and sent.active.attempt.worker != worker:
            # The daemon tries it again, on another worker.
            sent.active.attempt = replace(sent.active.attempt, worker=worker)
        return sent.active

    def _begun(self, portion: Portion, sent: SentTask, recorded: bool) -> None:
        if not recorded:
            self._is_over(portion, sent)
            return
        sent.begun = True
        if sent.view is not None:
            self._take_in(portion, sent)

    def _result(self, portion: Portion, view: Mapping[str, Any]) -> None:
        sent = portion.tasks[int(view["position"])]
        if sent.over or sent.view is not None:
            return
        sent.view = view
        run, worker = portion.run, view["worker"]
        if not run.has(sent.task):
            self._is_over(portion, sent)
        elif view["status"] == "cancelled":
            self._cancelled(portion, sent)
        elif worker is None and sent.active is None:
            self._is_over(portion, sent)
            run.refuse_task(sent.task, "failed", str(view["error"]), view["cause"])
        else:
            if worker is None and sent.active is not None:
                worker = sent.active.attempt.worker
            self._begin(portion, sent, str(worker))
            self._count(sent, max(1, int(view["attempts"])))
            if sent.begun:
                self._take_in(portion, sent)

    def _count(self, sent: SentTask, attempts: int) -> None:
        """Note how often the daemon tried a task."""
        sent.task.attempts = attempts
        if sent.active is not None:
            sent.active.attempt = replace(sent.active.attempt, number=attempts)

    def _cancelled(self, portion: Portion, sent: SentTask) -> None:
        """A task was not begun any more, or came to nothing while its job was being ended."""
        if portion.run.job.ends_as is None:
            portion.run.stop(CANCELLED)  # somebody cancelled it at the daemon
        self._let_go(portion, sent, "it was not tried to the end")

    def _let_go(self, portion: Portion, sent: SentTask, why: str) -> None:
        """A task is to be tried again, unless its job ends."""
        self._is_over(portion, sent)
        run = portion.run
        if sent.active is not None:
            run.attempts.lost(sent.active, WorkerLoss(why), blamed=False)
        elif run.has(sent.task) and run.job.ends_as is None:
            self._queue(run, sent.task)

    def _take_in(self, portion: Portion, sent: SentTask) -> None:
        """Do what is to be done with a result, now that its lease is recorded."""
        active, view = sent.active, sent.view
        assert active is not None and view is not None
        if view["success"]:
            self._helpers.give(self._bring, portion, sent, active, view)
            return
        outcome: Outcome = "quarantined" if view["status"] == "quarantined" else "failed"
        self._is_over(portion, sent)
        portion.run.attempts.ended_elsewhere(
            active, outcome, str(view["error"]), float(view["elapsed"]), view["cause"]
        )

    def _ended(self, portion: Portion) -> None:
        for sent in portion.tasks:
            if sent.view is None and not sent.over:
                self._let_go(portion, sent, "the server gave no result")

    def _forgotten(self, portion: Portion) -> None:
        """The daemon dropped a job, as this process was not heard for long: it gets it again."""
        for sent in portion.tasks:
            if not sent.over and (sent.view is None or not sent.begun):
                self._let_go(portion, sent, "the server dropped it")

    def _refused(self, portion: Portion, reason: str) -> None:
        for sent in portion.tasks:
            if not sent.over:
                self._is_over(portion, sent)
                if sent.active is not None:
                    portion.run.attempts.ended_elsewhere(sent.active, "failed", reason, 0.0, None)
                elif portion.run.has(sent.task):
                    portion.run.refuse_task(sent.task, "failed", reason, None)

    def _is_over(self, portion: Portion, sent: SentTask) -> None:
        if sent.over:
            return
        sent.over = True
        portion.open -= 1
        if portion.open == 0:
            lane = self._lanes.get(portion.run.number)
            if lane is not None and portion in lane.portions:
                lane.portions.remove(portion)
            self._drop(portion)

    # -- in the fetchers' threads ----------------------------------------------------

    def _bring(
        self, portion: Portion, sent: SentTask, active: ActiveAttempt, view: Mapping[str, Any]
    ) -> None:
        """Fetch a result and write it where a worker would have."""
        path = f"/v1/jobs/{portion.id}/results/{sent.position}/content"
        come: Callable[[], None]
        try:
            data = self._patience.ask(
                lambda: self._server.content(path), lambda: not active.thrown_away
            )
            done = _written(data, active.lease, float(view["elapsed"]))
        except ServerGone:
            come = lambda: self._let_go(portion, sent, "the server is gone")  # noqa: E731
        except ServerRefusal as error:
            text = f"The result could not be fetched: {error}"
            come = lambda: self._failed(portion, sent, "error", text)  # noqa: E731
        except (ValueError, OtherResult) as error:
            other = f"The server's result cannot be used: {error}."
            come = lambda: self._failed(portion, sent, "error", other)  # noqa: E731
        except OSError as error:
            refusal = f"{active.admitted.task.output_path}: {error.strerror or error}"
            kind = "storage" if error.errno in FATAL_ERRNOS else "error"
            come = lambda: self._failed(portion, sent, kind, refusal)  # noqa: E731
        else:
            come = lambda: self._brought(portion, sent, done)  # noqa: E731
        self._hand_over(come)

    def _brought(self, portion: Portion, sent: SentTask, done: Done) -> None:
        assert sent.active is not None
        run = portion.run
        run.attempts.done(sent.active, done, recorded=lambda: self._is_over(portion, sent))

    def _failed(self, portion: Portion, sent: SentTask, kind: Any, error: str) -> None:
        assert sent.active is not None
        self._is_over(portion, sent)
        if kind == "storage":
            failed = Failed(sent.active.lease_id, "storage", error)
            portion.run.attempts.failed(sent.active, failed)
        else:
            portion.run.attempts.ended_elsewhere(sent.active, "failed", error, 0.0, kind)


def _written(data: bytes, lease: Lease, elapsed: float) -> Done:
    """Write a result as a worker does; it is complete and synced on return.

    Raises:
        ValueError: it is not what the lease asks for.
        OSError: the disk refuses.
    """
    content, used = relabelled(data, lease)
    with Path(lease.partial_path).open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    digest = hashlib.sha256(content).hexdigest()
    return Done(lease.lease_id, len(content), digest, elapsed, used)
