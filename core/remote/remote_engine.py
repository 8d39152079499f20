"""An engine whose workers are a daemon's: jobs in, results out, as from one's own.

Everything that belongs to the output folder happens here, in the same way as with workers of
one's own (see `core.remote.sent_tasks`); only then the daemon's copy is removed. One thread owns
the fate of every task; each portion of tasks that the daemon has is followed by a thread of its
own.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from loguru import logger

from core.devices.device import Device
from core.engine.job import INTERRUPTED, Job
from core.engine.job_run import JobRun
from core.engine.retry import RetryRules
from core.engine.task_engine import CLOSED, TaskEngine
from core.engine.task_state import TaskState
from core.errors import InputError
from core.events import Listener, WorkerState, ignore
from core.lora_paths import name_of
from core.lora_stack import CheckedLora
from core.messages import KeepWay
from core.remote.helpers import Helpers
from core.remote.portion import (
    Follower,
    Patience,
    Portion,
    ServerGone,
    Told,
    cancel,
    drop,
)
from core.remote.protocol import MOST_PRIORITY
from core.remote.sent_files import SentFiles
from core.remote.sent_tasks import SentTasks
from core.remote.server import Server, ServerRefusal
from core.remote.server_waits import ServerWaits
from core.tasks import Status

if TYPE_CHECKING:
    from core.engine.served_model import ServedModel
    from core.engine.snapshot import EngineSnapshot

SIZES = (16, 64, 256)  # tasks of a job's first portions, and of all others
MOST_OUT = 2000  # tasks of one job that the daemon has
MOST_PORTIONS = 16
FETCHERS = 4
END_PATIENCE = 5.0  # seconds for followers at the end
GONE = "Not finished: the server went away. Run again to continue."
OTHER_VERSION = (
    "Not finished: the server is of another version of the program. Run again to continue, with "
    "both of one version or without a server."
)


@dataclass(eq=False)
class _Lane:
    """A job's tasks on their way to the daemon."""

    run: JobRun
    pending: deque[TaskState] = field(default_factory=deque)
    portions: list[Portion] = field(default_factory=list)
    sent: int = 0  # portions so far
    newest: Follower | None = None  # of the portion that was sent last

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
        tasks = SentTasks(
            server, self._patience, self._helpers, self._hand_over, self._queue, self._is_over
        )
        self._waits = ServerWaits(server.name, self._listener)
        self._tasks = tasks
        self._told = Told(
            waits=lambda *told: self._post(lambda: self._server_waits(*told)),
            step=lambda *told: self._post(lambda: tasks.step(*told)),
            result=lambda *told: self._post(lambda: tasks.result(*told)),
            ended=lambda portion: self._post(lambda: tasks.ended(portion)),
            forgotten=lambda portion: self._post(lambda: tasks.forgotten(portion)),
            refused=lambda *told: self._post(lambda: tasks.refused(*told)),
            gone=lambda reason: self._post(lambda: self._server_gone(reason)),
            other_version=lambda *told: self._post(lambda: self._other_version(*told)),
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
        if not self._ending.is_set():
            logger.error(f"The server at {self._server.name} is gone ({reason}).")
            self._over = ("interrupted", GONE)
            self._end_all()

    def _other_version(self, portion: Portion, how: str) -> None:
        """Have the daemon do nothing more: the rest is for another run.

        What it has accepted, it finishes, unless what it says is not understood.
        """
        if self._over is None:
            self._over = ("interrupted", OTHER_VERSION)
            logger.error(
                f"The server at {self._server.name} is of another version of the program ({how}). "
                "Start the server and this from one version, or go on without it (--no-server, or "
                "use_server: never): what is finished is not made again."
            )
        if portion.id is not None:
            self._end_all()
            return
        for run in self._runs():
            run.stop(OTHER_VERSION)
        self._tasks.forgotten(portion)

    def _end_all(self) -> None:
        """Nothing of use comes from the daemon any more."""
        if not self._ending.is_set() and self._over is not None:
            self._ending.set()
            self._close_all(*self._over)

    def _server_waits(self, portion: Portion, reason: str | None) -> None:
        if not portion.dropped:
            self._waits.told(portion, reason)

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

        follower = Follower(portion, request, self._patience, self._told, lane.newest)
        lane.newest = follower
        follower.thread.start()

    def _is_over(self, portion: Portion) -> None:
        """No task of a portion is open any more."""
        if portion.run.job.ends_as is None:
            self._waits.told(portion, None)
        lane = self._lanes.get(portion.run.number)
        if lane is not None and portion in lane.portions:
            lane.portions.remove(portion)
        self._drop(portion)

    def _drop(self, portion: Portion) -> None:
        self._waits.over(portion)
        if not portion.dropped:
            portion.dropped = True
            self._helpers.give(drop, self._server, portion)
