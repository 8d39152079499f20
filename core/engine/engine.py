"""The engine: jobs in, results out, on warm and supervised workers.

One thread owns the scheduler, the slots and the fate of every task. It waits for messages, deaths,
records, callers and timers together, so that no worker can delay what another one needs.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from loguru import logger

from core.devices.device import Device, memory_in_use
from core.engine.backend import Joined, Leaves, Lost, NotUsed, Report, WorkerBackend
from core.engine.dispatcher import Dispatcher
from core.engine.job import INTERRUPTED, Job
from core.engine.job_run import JobRun
from core.engine.job_table import JobTable
from core.engine.lora_keeper import LoraKeeper
from core.engine.memory_release import MemoryRelease
from core.engine.model_assignment import ModelAssignment
from core.engine.model_switch import Stages
from core.engine.scheduler import Scheduler
from core.engine.served_model import ServedModel
from core.engine.slots import SURE, Slots
from core.engine.snapshot import EngineSnapshot, snapshot
from core.engine.standstill import Standstill
from core.engine.supervisor import STALL_CHECKS, Supervisor
from core.engine.task_engine import CLOSED, TaskEngine
from core.engine.task_state import TaskState
from core.engine.worker_reports import WorkerReports, concerns_no_decision
from core.engine.worker_slot import WorkerSlot
from core.errors import MultiGPUError
from core.events import DevicesNotUsed, Listener, ignore
from core.intake.admission import Admitted
from core.lora_stack import CheckedLora
from core.memory_modes import Mode
from core.names import counted
from core.settings import SchedulingSettings, SupervisionSettings
from core.tasks import Status

T = TypeVar("T")
IDLE_WAIT = 60.0  # seconds between turns when nothing is due
BUSY_WAIT = 1.0  # the same while a worker has a deadline: a later turn shows that we were held up
IDLE_TURN = 0.2  # seconds between turns while a worker waits for another one's task


class Engine(TaskEngine):
    """Works on many jobs at once with one worker per slot.

    Args:
        devices: a slot each.
        models: what it can serve.
        backend: runs the workers.
        rules: deadlines, restarts and retries.
        scheduling: how tasks are chosen.
        listener: told of workers' states; called from the engine's thread.
        stages: a bound on which model a slot may have when.
        release_patience: seconds to wait for the GPU memory of a model that left.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        models: Sequence[ServedModel],
        backend: WorkerBackend,
        rules: SupervisionSettings,
        scheduling: SchedulingSettings,
        listener: Listener = ignore,
        stages: Stages = "auto",
        release_patience: float = 60.0,
    ) -> None:
        super().__init__(rules, listener)
        self._backend = backend
        self._rules = rules
        self._models = {model.name: model for model in models}
        self._slots = Slots()
        for device in devices:
            self._slots.add(WorkerSlot(device))
        self._scheduler = Scheduler(scheduling.max_passed_over)
        self._jobs = JobTable(self._scheduler)
        self._joined: list[Device] = []  # of machines that came since the start and are here
        self._lost_nodes: set[str] = set()
        self._not_used: set[str] = set()  # machines of which it was said
        self._over: str | None = None  # why nothing is taken any more
        self._commands: deque[Callable[[], None]] = deque()
        self._checked_at = self._next_check = math.inf  # monotonic times of looks at deadlines
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        release = MemoryRelease(self._slots, memory_in_use, release_patience)
        self._release = release
        self._loras = LoraKeeper(self._slots, backend)
        self._supervisor = Supervisor(
            self._slots,
            backend,
            rules,
            listener,
            release,
            self._loras,
            on_lost=lambda *loss: self._reports.lost(*loss),
            on_given_up=self._given_up,
            on_changed_memory=self._changed_memory,
            keeps_results=self._keeps_results,
            tell_later=lambda event: self._post(lambda: listener(event)),
        )
        self._dispatcher = Dispatcher(
            self._slots,
            self._scheduler,
            backend,
            find=self._jobs.find,
            run_of=self._jobs.of,
            loras=self._loras,
            copies=scheduling.speculative_copies,
        )
        self._assignment = ModelAssignment(self._slots, self._models, self._scheduler, stages)
        self._standstill = Standstill(self._slots, self._models, self._scheduler, listener)
        self._reports = WorkerReports(
            self._slots,
            self._supervisor,
            self._dispatcher,
            self._jobs,
            self._loras,
            rules.task_timeout_minimum,
        )

    # -- called from other threads -----------------------------------------------

    def start(self) -> None:
        """Begin to work; returns at once. Workers come as tasks ask for their models."""
        self._thread.start()

    def add_model(self, model: ServedModel) -> None:
        """Serve one more model, on slots that are there and on those that it brings.

        Where it shares devices out in another way than the models before it, its slots wait for
        theirs to leave a device that they have in common, and theirs for its own.
        """
        self._hand_over(lambda: self._add_model(model))

    def warm(self, name: str) -> None:
        """Start a model's workers before there are tasks for them, and keep them."""
        self._post(lambda: self._assignment.keep_warm(name, self._supervisor))

    def unload(self, name: str) -> None:
        """Let a model's workers go, unless tasks wait for it; they come with the next task."""
        self._post(lambda: self._assignment.unload(name, self._supervisor))

    def load_loras(
        self, name: str, loras: Sequence[CheckedLora], pin: bool = False
    ) -> "Future[None]":
        return self._answered(lambda: self._loras.load(self._models[name], loras, pin))

    def unload_loras(
        self, name: str, hashes: Collection[str], paths: Collection[str] = ()
    ) -> "Future[None]":
        return self._answered(lambda: self._loras.unload(self._models[name], hashes, paths))

    def drain(self, worker: str) -> None:
        """Give a worker nothing more, and end it when it has finished what it has."""
        self._post(lambda: self._with_slot(worker, self._supervisor.drain))

    def undrain(self, worker: str) -> None:
        """Let a drained worker come back."""
        self._post(lambda: self._with_slot(worker, self._supervisor.undrain))

    def snapshot(self) -> "Future[EngineSnapshot]":
        """How workers and models stand, told by the engine's thread in its turn."""
        return self._answered(lambda: snapshot(self._slots, self._models, self._scheduler))

    def _answered(self, call: Callable[[], T]) -> "Future[T]":
        """What a call in the engine's thread returns, or raises."""
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()

        def make() -> None:
            try:
                answer.set_result(call())
            except MultiGPUError as error:
                answer.set_exception(error)

        self._hand_over(make)
        return answer

    def fetch(self, names: Sequence[str]) -> None:
        """Begin to bring hub models to this machine, one after the other."""
        self._post(lambda: self._supervisor.fetch(self._models[name] for name in names))

    @property
    def lora_counts(self) -> tuple[int, int]:
        """LoRA loads and switches of all workers so far."""
        models = list(self._models.values())  # in one step: one more may come meanwhile
        return sum(m.lora_loads for m in models), sum(m.lora_switches for m in models)

    @property
    def waits_in_step(self) -> list[tuple[float, int]]:
        """For each model whose workers wait for each other: worker-seconds waited, and steps."""
        models = list(self._models.values())
        barriers = [m.barrier for m in models if m.barrier is not None]
        return [(barrier.waited, barrier.steps) for barrier in barriers if barrier.steps]

    @property
    def device_waits(self) -> list[float]:
        """Seconds for which devices had nothing to do before each of their newest tasks."""
        return [wait for model in list(self._models.values()) for wait in list(model.waits)]

    def expect(self, job: Job, model: str, tasks: int) -> None:
        """Say how many tasks for a model a job will still be given: slots are shared out by it."""
        self._post(lambda: self._expect(job.number, model, tasks))

    def stop(self, at_once: bool = False) -> None:
        """Send the poison pill and wait until every worker is gone.

        Args:
            at_once: kill them instead.
        """
        if not self._thread.is_alive():
            return
        self._post(lambda: self._close(at_once))
        self._thread.join()

    def hurry(self) -> None:
        """Kill workers that a stop waits for; safe in a signal handler."""
        self._post(self._hurry)

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._backend.wake()

    # -- the engine's thread: receive, decide, act ---------------------------------

    def _run(self) -> None:
        try:
            while not (self._supervisor.closing and not any(s.alive for s in self._slots)):
                self._turn()
            self._finish_records()
        except BaseException as error:
            logger.exception("The engine broke down; this is a defect, please report it.")
            self._break_down(error)
        finally:
            self._leave()

    def _turn(self) -> None:
        self._receive(self._seconds_to_next_timer())
        now = self._checked_at = time.monotonic()
        self._supervisor.forgive(max(0.0, now - self._next_check))
        for model in self._models.values():
            self._supervisor.mind_the_fetch(model)
        self._supervisor.check_all(now)
        self._dispatcher.give_to_all()
        self._assignment.assign(self._supervisor, now)  # of slots that could be given nothing
        self._supervisor.start_all(now)
        self._standstill.look()

    def _receive(self, timeout: float) -> None:
        """Wait for what workers, recorders and callers have to say, and act on it.

        Every waking costs more than what is done then. So where no device can notice, more is
        waited for, and what concerns no decision is passed on without one (it may hide a call of
        `wake` until the next timer).
        """
        end = time.monotonic() + timeout
        goes_on = True
        while goes_on:
            reports = self._backend.poll(max(0.0, end - time.monotonic()))
            if self._dispatcher.all_are_provided_for:
                time.sleep(SURE)
                reports += self._backend.poll(0.0)
            for report in reports:
                self._hear(report)
            goes_on = (
                bool(reports) and not self._commands and all(map(concerns_no_decision, reports))
            )
        while self._commands:
            self._commands.popleft()()

    def _hear(self, report: Report) -> None:
        match report:
            case Joined(devices):
                self._join(devices)
                self._used(devices[0].node)
            case NotUsed(node, why):
                self._not_used.add(node)
                self._listener(DevicesNotUsed(node, why))
            case Leaves(node, why):
                logger.warning(f"{node}: {why}; its workers finish what they have.")
                self._supervisor.drain_all(s for s in self._slots if s.device.node == node)
            case Lost(node, why):
                self._joined = [d for d in self._joined if d.node != node]
                self._lost_nodes.add(node)
                self._supervisor.lost(
                    [s for s in self._slots if s.device.node == node], self._models.values(), why
                )
            case _:
                self._reports.receive(report)

    def _used(self, node: str) -> None:
        """A machine has joined, of which it may have been said why it is not used."""
        if node in self._not_used:
            self._not_used.discard(node)
            self._listener(DevicesNotUsed(node, None))

    def _seconds_to_next_timer(self) -> float:
        if self._commands:
            return 0.0
        now = time.monotonic()
        deadline = self._slots.next_deadline
        # From the last look on: what we did since then may have held us up, too.
        self._next_check = min(now, self._checked_at) + (
            BUSY_WAIT if deadline < math.inf else IDLE_WAIT
        )
        timers = [self._next_check, deadline]
        if not self._supervisor.closing:
            down = [slot for slot in self._slots.of("down") if slot.model is not None]
            timers += [slot.start_at for slot in down if self._supervisor.could_start(slot)]
            timers += [now + IDLE_TURN] * self._release.waiting
        if self._slots.any_of("loading"):
            timers.append(now + self._rules.load_stall_timeout / STALL_CHECKS)
        if self._jobs and self._dispatcher.may_come_to_idle():
            timers.append(now + IDLE_TURN)
        timers.append(self._assignment.looks_again_at)
        return max(0.0, min(timers) - now)

    # -- jobs ------------------------------------------------------------------------

    def _runs(self) -> Iterable[JobRun]:
        return self._jobs

    def _find(self, number: int) -> JobRun | None:
        return self._jobs.get(number)

    def _work_on(self, run: JobRun) -> None:
        self._jobs.add(run)

    def _queue(self, run: JobRun, task: TaskState) -> None:
        self._jobs.queue(run, task)

    def _withdraw(self, run: JobRun, model: str | None) -> None:
        self._jobs.withdraw(run, model)

    def _expect(self, number: int, model: str, tasks: int) -> None:
        if number in self._jobs:
            self._assignment.expect(number, model, tasks)

    def _fitted(self, admitted: Admitted) -> Admitted:
        """Fit a task to the memory mode in which its model is loaded today."""
        model = self._models.get(admitted.role)
        return model.remade(admitted) if model is not None else admitted

    def _refusal(self, admitted: Admitted) -> tuple[Status, str] | None:
        """The result of a task that cannot be tried any more."""
        end = self._end()
        if end is not None:
            return end
        model = self._models.get(admitted.role)
        if model is None:
            return "failed", f"Nothing here can {admitted.role}."
        return ("failed", model.given_up) if model.given_up is not None else None

    def _end(self) -> tuple[Status, str] | None:
        """What becomes of all tasks from now on; None while they are worked on."""
        if self._over is not None:
            return "failed", self._over
        return ("interrupted", CLOSED) if self._supervisor.closing else None

    def _finished(self, run: JobRun) -> None:
        """Every task of a job has its result."""
        self._jobs.end(run)
        self._assignment.ended(run.number)

    def _with_slot(self, name: str, call: Callable[[WorkerSlot], None]) -> None:
        for slot in self._slots:
            if slot.name == name:
                call(slot)

    # -- models ----------------------------------------------------------------------

    def _add_model(self, model: ServedModel) -> None:
        self._add_slots([d for d in model.devices if d.node not in self._lost_nodes])
        self._models[model.name] = model
        if self._joined:
            self._add_slots(model.join(self._joined))

    def _join(self, devices: Sequence[Device]) -> None:
        """A machine has come, perhaps again: every model gets workers on its devices.

        It may come again without having been lost, as where nobody could reach it for a while. Its
        workers are gone then, and its devices may be others, or fewer.
        """
        node = devices[0].node
        logger.info(f"{node}: joined with {counted(len(devices), 'device')}.")
        self._joined = [*(d for d in self._joined if d.node != node), *devices]
        self._lost_nodes.discard(node)
        names: set[str] = set()
        for model in self._models.values():
            shared = model.join(devices)
            self._add_slots(shared)
            names |= {device.label for device in shared}
        here = [s for s in self._slots if s.device.node == node and s.lost is None]
        if gone := [slot for slot in here if slot.name not in names]:
            self._supervisor.lost(gone, self._models.values(), "it has fewer devices than before")

    def _add_slots(self, devices: Sequence[Device]) -> None:
        known = {slot.name: slot for slot in self._slots}
        for device in devices:
            slot = known.get(device.label)
            if slot is None:
                slot = WorkerSlot(device)
                self._slots.add(slot)
                self._reports.add_slot(slot)
            elif slot.lost is not None:
                slot.comes_again(device)
            elif not slot.alive:
                slot.use(device)

    def _given_up(self, model: ServedModel, reason: str, brief: str | None) -> None:
        for run in self._jobs:
            run.close_some("failed", reason, brief, model.name)

    def _changed_memory(self, model: ServedModel, mode: Mode) -> None:
        model.remake_for(mode)
        for run in self._jobs:
            run.remake(lambda a: model.remade(a) if a.role == model.name else a)

    def _keeps_results(self, model: ServedModel) -> bool:
        return model.has_served or any(run.keeps_results for run in self._jobs)

    # -- the end -----------------------------------------------------------------------

    def _close(self, at_once: bool) -> None:
        self._close_all("interrupted", INTERRUPTED)
        self._supervisor.close(at_once)

    def _hurry(self) -> None:
        if self._supervisor.closing:
            self._supervisor.close(at_once=True)

    def _finish_records(self) -> None:
        """Wait until everything that is being recorded has been reported."""
        while self._jobs:
            self._receive(IDLE_WAIT)

    def _break_down(self, error: BaseException) -> None:
        self._over = f"The engine broke down ({error!r})."
        self._supervisor.closing = True
        self._close_all("failed", self._over)
        for slot in self._slots:
            if slot.alive:
                self._supervisor.kill(slot, "the engine broke down")

    def _leave(self) -> None:
        """Answer what was handed over and not read; what comes later is answered at once."""
        with self._going:
            self._gone = True
            while self._commands:
                try:
                    self._commands.popleft()()
                except Exception:
                    logger.exception("A command to the engine failed after its end.")
        for model in self._models.values():
            model.stop_fetching()
        self._backend.close()
        self._reports.log.close()
