"""The processes: start, load, lease, collect, supervise, stop.

One thread owns every worker and lives as long as they do. It waits for messages, deaths and
timers together, so no worker can delay what another one needs. Nothing is shared between
workers; see `core.engine.worker_handle`.
"""

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from loguru import logger

from core.devices.device import Device
from core.devices.load_turns import LoadTurns
from core.devices.memory_choice import MemoryChoice
from core.devices.model_choice import is_hub_model
from core.engine.barrier import Barrier
from core.engine.batch import ActiveLease, Batch, WorkerLoss
from core.engine.leasing import Leasing
from core.engine.pace import Pace
from core.engine.restarts import Restarts
from core.engine.worker_handle import State, WorkerHandle
from core.engine.worker_log import WorkerLog
from core.events import Event, Listener, TaskProgress, WorkerState, ignore
from core.fault_points import fault_point
from core.intake.admission import Admitted
from core.memory_modes import Mode
from core.messages import (
    BootFailed,
    Compiling,
    Done,
    Failed,
    FailureKind,
    Generated,
    LibraryWarning,
    Load,
    Loaded,
    LoadFailed,
    Log,
    PromptCut,
    Ready,
    StepsDone,
    Stop,
)
from core.paths import user_path
from core.processes.entry_points import run_fetch, run_worker
from core.processes.model_fetch import ModelFetch
from core.processes.sources import Sources
from core.processes.starters import starter_for
from core.settings import SchedulingSettings, SupervisionSettings, WorkerSettings
from core.tasks import Status
from core.worker_spec import WorkerSpec

IDLE_WAIT = 60.0  # seconds between turns when nothing is due
BUSY_WAIT = 1.0  # the same while a worker has a deadline: a later turn shows that main was held up
IDLE_TURN = 0.2  # seconds between turns while a worker waits for another one's task
STALL_CHECKS = 4  # looks at a loading worker within the time in which it has to get on
KILL_GRACE = 5.0  # seconds for the kernel to end a killed process


class PoolSettings(Protocol):
    """What a pool needs of a run's settings."""

    @property
    def supervision(self) -> SupervisionSettings: ...
    @property
    def workers(self) -> WorkerSettings: ...
    @property
    def scheduling(self) -> SchedulingSettings: ...


def fetch_for(
    spec: WorkerSpec, rules: SupervisionSettings, listener: Listener
) -> ModelFetch | None:
    """Of a hub's model, to be brought here or found here; None for other models."""
    if not is_hub_model(spec.source):
        return None
    return ModelFetch(run_fetch, spec, rules, listener)


class WorkerPool:
    """One supervised worker process per device.

    Args:
        specs: one worker each.
        listener: told of worker states; called from the pool's thread.
        in_step: workers wait for each other after every task (`enable_batch_sync`).
        on_dismissed: told the device of a worker that left by `dismiss`.
        memory: how the model's memory mode was decided, for workers that run out of memory while
            they load; without it they are given up.
        log: where workers' words go, for pools that share one; by default a log of its own.
        fetch: of the workers' model, where it began before.
    """

    def __init__(
        self,
        specs: Sequence[tuple[Device, WorkerSpec]],
        settings: PoolSettings,
        listener: Listener = ignore,
        in_step: bool = False,
        on_dismissed: Callable[[Device], None] = lambda device: None,
        log: WorkerLog | None = None,
        fetch: ModelFetch | None = None,
        memory: MemoryChoice | None = None,
    ) -> None:
        self._memory = memory
        self._remade: Callable[[Admitted], Admitted] = lambda job: (
            job
        )  # for the mode that all changed to
        self._rules = settings.supervision
        self._listener = listener
        self._spec = specs[0][1]  # of a worker; all of a pool load one model
        self._concurrent_loads = settings.workers.concurrent_loads
        self._turns = LoadTurns(self._concurrent_loads, self._spec)
        self._model_folder = ""  # where a hub's model lies; empty for other models
        self._fetch = fetch or fetch_for(self._spec, self._rules, self._tell_later)
        if self._fetch is not None:
            self._fetch.on_change = partial(self._post, lambda: None)
        self.barrier = Barrier() if in_step else None
        self._on_dismissed = on_dismissed
        self._log = log if log is not None else WorkerLog()
        self._closes_log = log is None
        self._pace = Pace(self._rules)
        self._restarts = Restarts(self._rules)
        self._batch: Batch | None = None
        self._closing = False
        self._gone = False  # the thread has ended, or is about to, and reads no command more
        self._going = threading.Lock()  # so that nobody hands something over meanwhile
        self._give_up_reason: str | None = None
        self.has_served = False  # a worker loaded its model
        self.cannot_load = False  # the model, in any worker
        self.lora_loads = 0
        self.lora_switches = 0
        self.waits: deque[float] = deque(maxlen=1000)  # of devices, before their newest tasks
        self._commands: deque[Callable[[], None]] = deque()
        self._checked_at = self._next_check = math.inf  # monotonic times of looks at deadlines
        self._sources: Sources[WorkerHandle] = Sources()
        self._endings: deque[tuple[WorkerHandle, Done | Failed]] = deque()  # not settled yet
        self._thread = threading.Thread(target=self._run, name="worker-pool", daemon=True)
        self._starter = starter_for(
            settings.workers.start_method,
            specs[0][1],
            self._rules.boot_timeout,
            on_ready=lambda: self._post(lambda: None),
        )
        self._handles = [self._handle(device, spec) for device, spec in specs]
        copies = settings.scheduling.speculative_copies
        self._leasing = Leasing(self._handles, self._pace, self.barrier, copies)

    def _tell_later(self, event: Event) -> None:
        """From the pool's thread, as all other events."""
        self._post(partial(self._listener, event))

    def _handle(self, device: Device, spec: WorkerSpec) -> WorkerHandle:
        return WorkerHandle(device, run_worker, spec, self._starter)

    # -- called from other threads -------------------------------------------

    @property
    def gave_up(self) -> bool:
        """No worker is left, and what is submitted fails."""
        return self._give_up_reason is not None

    def start(self) -> None:
        """Start the workers, after their model was fetched; returns at once."""
        self._thread.start()
        if self._fetch is not None:
            self._fetch.start()

    def submit(self, batch: Batch) -> None:
        """Hand a batch over; one at a time. Wait on the batch itself."""
        self._hand_over(lambda: self._take(batch))

    def stop_leasing(self) -> None:
        """Let running tasks finish; their batch then closes as interrupted."""
        self._post(lambda: self._batch.stop_leasing() if self._batch else None)

    def abandon(self, status: Status, reason: str) -> None:
        """Close the batch now; what still runs is thrown away when it ends.

        A pool that is already waiting for its workers to leave waits no longer.
        """
        self._post(lambda: self._abandon(status, reason))

    def extend(self, job: Admitted) -> None:
        """Add a job to the running batch, which was made open-ended."""
        self._hand_over(lambda: self._batch.add(self._remade(job)) if self._batch else None)

    def seal(self) -> None:
        """The running batch is complete when all its jobs are: no more will be added."""
        self._hand_over(lambda: self._batch.seal() if self._batch else None)

    def adopt(self, device: Device, spec: WorkerSpec) -> None:
        """One worker more."""
        self._post(lambda: self._handles.append(self._handle(device, spec)))

    def dismiss(self, count: int = 1) -> None:
        """Have workers leave as soon as their tasks are done; `on_dismissed` follows for each.

        The last one that lives stays until the batch is finished.
        """
        self._post(lambda: self._dismiss(count))

    def stop(self, at_once: bool = False) -> None:
        """Send the poison pill and wait until every worker is gone.

        Args:
            at_once: kill them instead.
        """
        if not self._thread.is_alive():
            return
        self._post(lambda: self._close(at_once))
        self._thread.join()

    def _hand_over(self, command: Callable[[], None]) -> None:
        """Have the pool's thread do it; once that is gone, do it here. Not for signal handlers."""
        with self._going:
            if not self._gone:
                self._post(command)
                return
        command()

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._sources.wake()

    # -- the pool's thread ---------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._closing and not any(h.alive for h in self._handles)):
                self._turn()
        except BaseException as error:
            logger.exception("The worker pool broke down; this is a defect, please report it.")
            self._break_down(error)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Whatever was handed over and not read gets its answer; what comes later, at once."""
        with self._going:
            self._gone = True
            while self._commands:
                try:
                    self._commands.popleft()()
                except Exception:
                    logger.exception("A command to the worker pool failed after its end.")
        self._end_fetch()
        self._sources.close()
        if self._closes_log:
            self._log.close()

    def _turn(self) -> None:
        for handle in self._sources.wait(self._seconds_to_next_timer()):
            self._collect(handle)
        self._settle_endings()
        while self._commands:
            self._commands.popleft()()
        now = self._checked_at = time.monotonic()
        self._forgive(max(0.0, now - self._next_check))
        self._mind_the_fetch()
        for handle in list(self._handles):
            self._check_deadline(handle, now)
            self._check_load(handle, now)
            self._start_if_due(handle, now)
        self._grant_loads()
        for handle in list(self._handles):
            self._lease_to(handle)
            self._let_go_if_dismissed(handle)

    def _seconds_to_next_timer(self) -> float:
        now = time.monotonic()
        busy = any(h.deadline is not None for h in self._handles)
        # From the last look on: what main did since then may have held it up, too.
        self._next_check = min(now, self._checked_at) + (BUSY_WAIT if busy else IDLE_WAIT)
        timers = [self._next_check]
        timers += [h.deadline for h in self._handles if h.deadline is not None]
        if not self._closing and self._may_start:
            timers += [h.start_at for h in self._handles if h.state is State.DOWN]
        if any(h.state is State.LOADING for h in self._handles):
            timers.append(now + self._rules.load_stall_timeout / STALL_CHECKS)
        if self._unfinished and self._leasing.may_come_to_idle():
            timers.append(now + IDLE_TURN)
        return max(0.0, min(timers) - now) if not self._endings else 0.0

    def _collect(self, handle: WorkerHandle) -> None:
        """Read what a worker sent; a dead one's last words count before its death does."""
        died = handle.exit_code is not None
        for message in handle.receive():
            if isinstance(message, Failed):
                self._failed(handle, message)
            if isinstance(message, Done | Failed):
                handle.told.add(message.lease_id)
                self._endings.append((handle, message))
            else:
                self._receive(handle, message)
        if handle.hung_up:
            self._sources.drop_messages(handle)
        if died:
            while self._endings:
                self._settle(*self._endings.popleft())
            self._bury(handle)

    def _settle_endings(self) -> None:
        """To publish and to record waits for the disk: devices that ask for work come between.

        What comes meanwhile is for the next turn, so that commands and deadlines have theirs.
        """
        for _ in range(len(self._endings)):
            for handle in self._sources.wait(0):
                self._collect(handle)
            if self._endings:
                handle, message = self._endings.popleft()
                self._settle(handle, message)
                self._lease_to(handle)

    def _settle(self, handle: WorkerHandle, message: Done | Failed) -> None:
        """Publish and record it, if its batch still wants it."""
        handle.told.discard(message.lease_id)
        batch, _ = handle.saving.pop(message.lease_id, (None, None))
        if not handle.leases() and not handle.on_its_way_out:
            handle.set_deadline(None)
        if batch is not None and isinstance(message, Done):
            batch.done(message)
        elif batch is not None and isinstance(message, Failed):
            batch.failed(message)

    def _receive(self, handle: WorkerHandle, message: Any) -> None:
        match message:
            case Ready():
                self._ready(handle, message)
            case BootFailed(kind, error):
                self._cannot_serve(handle, kind, f"it cannot start: {error}")
            case Loaded():
                self._loaded(handle, message)
            case LoadFailed(kind, error, everywhere):
                reason = f"the model could not be loaded: {error}"
                if kind == "out_of_memory" and not handle.on_its_way_out:
                    self._needs_less_memory(handle, reason)
                else:
                    self._cannot_serve(handle, kind, reason, everywhere)
            case Compiling():
                if handle.running and not handle.on_its_way_out:
                    handle.set_deadline(self._pace.allowed(handle.name, handle.work, True))
            case StepsDone():
                self._tell_steps(handle, message)
            case Generated():
                self._generated(handle, message)
            case Log() | LibraryWarning() | PromptCut():
                self._log.write(handle.name, message)

    def _ready(self, handle: WorkerHandle, message: Ready) -> None:
        logger.debug(
            f"{handle.name}: pid {message.pid}, {message.device_name} ({message.device_uuid}), "
            f"CUDA_VISIBLE_DEVICES={message.visible_devices!r}, up in {message.boot_seconds:.1f} s"
        )
        if not handle.on_its_way_out:
            handle.set_deadline(None)
            self._change(handle, State.BOOTED)

    def _loaded(self, handle: WorkerHandle, message: Loaded) -> None:
        logger.debug(f"{handle.name}: {message.model_class} in {message.seconds:.1f} s")
        if not handle.on_its_way_out:
            handle.set_deadline(None)
            self.has_served = True
            self._change(handle, State.SERVING)
            self._lease_to(handle)

    def _cannot_serve(
        self, handle: WorkerHandle, kind: FailureKind, reason: str, everywhere: bool = False
    ) -> None:
        if handle.on_its_way_out:
            logger.error(f"{handle.name}: {reason}")
        elif everywhere and not self.has_served:
            self._retire_all(f"{handle.name}: {reason}")
        elif kind == "input" or everywhere:  # no other try would change anything
            self._retire(handle, reason)
        else:
            logger.error(f"{handle.name}: {reason}")
            self._expect_to_leave(handle, reason)

    def _needs_less_memory(self, handle: WorkerHandle, reason: str) -> None:
        """Load once in a mode that takes less memory, or give up: a try more would end the same."""
        fit = self._memory.fit if self._memory else None
        may_change = fit is not None and not handle.has_changed_memory
        if fit and may_change and fit.same_pixels:
            mode = fit.same_pixels[0]
            logger.warning(
                f"{handle.name}: {reason} It loads the model in memory mode {mode} instead: the "
                "same pictures, more slowly."
            )
            handle.load_smaller(mode)
            self._turns.change_to(mode)
            self._expect_to_leave(handle, reason)
        elif fit and may_change and fit.other_pixels and not self._has_results:
            logger.warning(f"{handle.name}: {reason}")
            self._expect_to_leave(handle, reason)
            self._change_memory(fit.other_pixels)
        else:
            why = fit.refusal(handle.device, handle.memory) if fit else ""
            self._retire(handle, f"{reason} {why}".rstrip())

    @property
    def _has_results(self) -> bool:
        """Pictures are there, or may be, which belong to the memory mode of today."""
        return self.has_served or (self._batch is not None and self._batch.keeps_results)

    def _change_memory(self, mode: Mode) -> None:
        """All workers load in another mode, so that a picture is the same whoever draws it."""
        assert self._memory is not None
        reason = f"all workers load the model in memory mode {mode} now"
        logger.warning(f"Memory: {reason}; it was not enough for the one before.")
        self._remade = self._memory.change_to(mode)
        self._turns.change_to(mode)
        if self._batch is not None:
            self._batch.remake(self._remade)
        for handle in self._handles:
            handle.load_smaller(mode)
            if handle.alive and not handle.on_its_way_out:
                handle.kill(reason)
                handle.set_deadline(KILL_GRACE)

    def _expect_to_leave(self, handle: WorkerHandle, reason: str) -> None:
        """The worker said that it ends itself, to come again with a fresh device context."""
        handle.leaves_because = reason
        if not handle.on_its_way_out:
            handle.set_deadline(self._rules.stop_timeout)
            self._change(handle, State.STOPPING)

    def _tell_steps(self, handle: WorkerHandle, message: StepsDone) -> None:
        """For those who watch; whether it hangs is told by its deadline alone."""
        if message.lease_id in handle.running:
            _, active = handle.running[message.lease_id]
            task, together = active.job.task_id, len(handle.running)
            progress = TaskProgress(task, handle.name, message.done, message.total, together)
            self._listener(progress)

    def _generated(self, handle: WorkerHandle, message: Generated) -> None:
        handle.loras = frozenset(message.resident_loras)
        handle.fresh = False
        self._restarts.after_task(handle)
        self.lora_loads += message.lora_loads
        self.lora_switches += message.lora_switches
        self.waits.append(message.waited)
        if message.lease_id not in handle.running:
            return
        _, active = handle.running[message.lease_id]
        loads, together = message.lora_loads, len(handle.running)
        self._pace.learn(handle.name, active.job.work, message.seconds, loads, together)
        self._leave_device(handle, message.lease_id)

    def _failed(self, handle: WorkerHandle, message: Failed) -> None:
        if message.leaving:
            self._expect_to_leave(handle, message.error)
        if message.lease_id in handle.running:  # and not with its picture drawn already
            handle.loras = frozenset(message.resident_loras)
            self._leave_device(handle, message.lease_id)

    def _leave_device(self, handle: WorkerHandle, lease_id: str) -> None:
        """The device is done with a lease; when with all of its group, it needs another."""
        handle.saving[lease_id] = handle.running.pop(lease_id)
        handle.saving_since = time.monotonic()
        if not handle.running and not handle.on_its_way_out:
            handle.set_deadline(self._rules.task_timeout_minimum)
            if handle.ahead:
                handle.running, handle.ahead = handle.ahead, {}
                self._has_begun(handle)
            self._lease_to(handle)

    # -- giving out work -----------------------------------------------------

    @property
    def _unfinished(self) -> bool:
        return self._batch is not None and not self._batch.finished

    def _take(self, batch: Batch) -> None:
        self._batch = batch
        batch.remake(self._remade)
        if self._give_up_reason is not None:
            batch.abandon("failed", self._give_up_reason)
        elif self._closing:
            batch.abandon("interrupted", "Not tried: the generator is closed.")

    def _lease_to(self, handle: WorkerHandle) -> None:
        batch = self._batch
        if batch is None:
            return
        if handle.takes_leases and (group := self._leasing.group_for(handle, batch)):
            handle.running = _held(batch, group)
            self._has_begun(handle)
            self._send(handle, group)
        if handle.takes_leases_ahead and (group := self._leasing.group_ahead_for(handle, batch)):
            handle.ahead = _held(batch, group)
            self._send(handle, group)

    def _has_begun(self, handle: WorkerHandle) -> None:
        """What is on the device now is new there."""
        handle.busy_since = time.monotonic()
        allowed = self._pace.allowed(handle.name, handle.work, handle.may_compile)
        handle.set_deadline(allowed)

    def _send(self, handle: WorkerHandle, group: Sequence[ActiveLease]) -> None:
        fault_point("main.lease")
        for active in group:
            if not handle.send(replace(active.lease, more_follow=active is not group[-1])):
                handle.undelivered.add(active.lease.lease_id)

    def _grant_loads(self) -> None:
        waiting = [h for h in self._handles if h.state is State.BOOTED]
        if not waiting or self._fetch is not None:
            return
        loading = sum(h.state is State.LOADING for h in self._handles)
        for handle in waiting[: max(0, self._turns.at_once(self.has_served) - loading)]:
            fault_point("main.load")
            handle.send(Load(self._model_folder))
            handle.set_deadline(self._rules.load_timeout)
            handle.watch_load()
            self._change(handle, State.LOADING)

    # -- the model's files ---------------------------------------------------

    @property
    def _may_start(self) -> bool:
        """Workers boot while the hub is asked, and not while the model comes: that takes long."""
        return self._starter.ready and not (self._fetch is not None and self._fetch.transfers)

    def _mind_the_fetch(self) -> None:
        """Once the model is there, or cannot be had."""
        fetch = self._fetch
        if fetch is None or self._closing:
            return
        if fetch.refusal is not None:
            self._retire_all(f"The model could not be loaded: {fetch.refusal}")
        elif fetch.folder is not None:
            self._model_folder, self._fetch = fetch.folder, None
            folder = str(user_path(fetch.folder, "model"))
            self._turns = LoadTurns(self._concurrent_loads, self._spec.fetched_to(folder))

    def _end_fetch(self) -> None:
        if self._fetch is not None:
            self._fetch.stop()
            self._fetch = None

    # -- deaths --------------------------------------------------------------

    def _forgive(self, seconds: float) -> None:
        """Main was held up so long (stopped, or by a disk): no worker shall pay for it."""
        for handle in self._handles:
            handle.forgive(seconds)

    def _check_deadline(self, handle: WorkerHandle, now: float) -> None:
        if handle.deadline is None or now < handle.deadline or self._has_word_from(handle):
            return
        if handle.kill_reason is not None:  # killed, and still not dead: stuck in the kernel
            self._retire(handle, "it does not react to SIGKILL")
            self._bury(handle)
            return
        reason = f"{handle.state.value} took longer than allowed"
        if handle.state is State.SERVING:
            reason = "the task took longer than allowed"
        handle.kill(reason)
        handle.set_deadline(KILL_GRACE)

    def _has_word_from(self, handle: WorkerHandle) -> bool:
        """It said something that main did not act on yet, or hung up."""
        return handle.has_unread_words or bool(handle.told)

    def _check_load(self, handle: WorkerHandle, now: float) -> None:
        """A load may take an hour, but not stand still: others may be waiting for their turn."""
        if handle.state is not State.LOADING or handle.kill_reason is not None:
            return
        assert handle.load_watch is not None
        if self._has_word_from(handle):
            return
        if handle.load_watch.idle_for(now) >= self._rules.load_stall_timeout:
            handle.kill("loading the model made no progress")
            handle.set_deadline(KILL_GRACE)

    def _bury(self, handle: WorkerHandle) -> None:
        reason = handle.describe_death()
        by_sigkill = handle.exit_code == -signal.SIGKILL
        hung = handle.kill_reason is not None
        expected = self._closing or handle.dismissed or handle.state is State.RETIRED
        if handle.kill_reason is not None:
            reason = handle.kill_reason
        leases = handle.leases()
        # Who announced its leaving has named the culprit; who lost its server knows none.
        orphaned = handle.process is not None and handle.process.orphaned
        innocent = orphaned or handle.leaves_because is not None
        never_begun = handle.undelivered | handle.ahead.keys()
        running = {i: held for i, held in handle.running.items() if i not in never_begun}
        handle.running, handle.ahead, handle.saving, handle.undelivered = {}, {}, {}, set()
        self._sources.drop(handle)
        handle.bury()
        if not expected:
            logger.warning(f"{handle.name}: {reason}.")
        loss = WorkerLoss(f"{handle.name}: {reason}", by_sigkill, hung)
        for batch, active in leases:
            lease_id = active.lease.lease_id
            # A crash may come of a picture that is being saved, too; a deadline is the task's own.
            suspect = not running or lease_id in running or not hung
            blamed = suspect and not innocent and lease_id not in never_begun
            batch.worker_lost(lease_id, loss, blamed)
        if self._closing:
            self._change(handle, State.STOPPED)
        elif handle.dismissed:
            self._change(handle, State.STOPPED)
            self._let_go(handle)
        elif handle.state is not State.RETIRED:
            self._plan_restart(handle, reason)

    def _plan_restart(self, handle: WorkerHandle, reason: str) -> None:
        is_last = all(h is handle or h.state is State.RETIRED for h in self._handles)
        wait = self._restarts.after_death(handle, is_last)
        if wait is None:
            self._retire(handle, f"it dies again and again, the last time: {reason}")
            return
        if wait > 0:
            count = handle.deaths_in_row
            logger.warning(f"{handle.name}: start {count + 1} in a row follows in {wait:.1f} s.")
        handle.start_at = time.monotonic() + wait
        self._change(handle, State.DOWN)

    def _start_if_due(self, handle: WorkerHandle, now: float) -> None:
        if handle.state is not State.DOWN or self._closing or now < handle.start_at:
            return
        if handle.dismissed or not self._may_start:
            return
        try:
            handle.start()
        except Exception as error:  # out of processes, threads, memory or file descriptors
            logger.warning(f"{handle.name}: could not be started: {error}")
            self._plan_restart(handle, f"could not be started: {error}")
            return
        assert handle.from_worker is not None and handle.process is not None
        self._sources.add(handle, handle.from_worker.fileno(), handle.process.sentinel)
        fault_point("main.boot")
        handle.set_deadline(self._rules.boot_timeout)
        self._change(handle, State.BOOTING)

    def _retire(self, handle: WorkerHandle, reason: str) -> None:
        """Give a worker up for good."""
        if handle.state is State.RETIRED:
            return
        self._use_no_more(handle, reason)
        logger.error(f"{handle.name} is given up: {reason}")
        self._mind_the_batch(f"{handle.name}: {reason}")

    def _retire_all(self, reason: str) -> None:
        """Give up all workers for what each of them would meet; say so once."""
        self.cannot_load = True
        for each in self._handles:
            if each.state is not State.RETIRED:
                self._use_no_more(each, reason)
        logger.error(f"{reason} All workers are given up.")
        self._mind_the_batch(reason)

    def _use_no_more(self, handle: WorkerHandle, reason: str) -> None:
        self._change(handle, State.RETIRED)
        if handle.alive and handle.kill_reason is None:
            handle.kill(reason)
            handle.set_deadline(KILL_GRACE)

    def _mind_the_batch(self, last_loss: str) -> None:
        """A worker left for good: somebody has to stay for the batch, or it is closed."""
        living = [h for h in self._handles if h.state is not State.RETIRED]
        if not living:
            self._give_up_reason = f"No worker is left; the last one: {last_loss}"
            self._end_fetch()
            if self._batch:
                self._batch.abandon("failed", self._give_up_reason, "No worker is left.")
        elif self._unfinished and all(h.dismissed for h in living):
            # Called back; one that is on its way out is started again.
            max(living, key=lambda h: h.state is State.SERVING).dismissed = False

    # -- the end -------------------------------------------------------------

    def _dismiss(self, count: int) -> None:
        """Those first that have nothing to do; one stays as long as the batch is not finished."""
        staying = [h for h in self._handles if not h.dismissed and h.state is not State.RETIRED]
        staying.sort(key=lambda h: (len(h.leases()), h.state is State.SERVING))
        for handle in staying[:count]:
            if handle is not staying[-1] or not self._unfinished:
                handle.dismissed = True

    def _let_go_if_dismissed(self, handle: WorkerHandle) -> None:
        if not handle.dismissed or handle.leases():
            return
        if not handle.alive:
            self._let_go(handle)
        elif handle.state is State.SERVING and handle.send(Stop()):
            self._change(handle, State.STOPPING)
            handle.set_deadline(self._rules.stop_timeout)
        elif handle.state is not State.STOPPING and handle.kill_reason is None:
            handle.kill("it is not needed any more")
            handle.set_deadline(KILL_GRACE)

    def _let_go(self, handle: WorkerHandle) -> None:
        self._handles.remove(handle)
        self._on_dismissed(handle.device)
        self._mind_the_batch(f"{handle.name}: it is not needed any more")

    def _close(self, at_once: bool) -> None:
        self._closing = True
        if self._batch and self._unfinished:
            self._batch.abandon("interrupted", "Not tried: the run was interrupted.")
        for handle in self._handles:
            if not handle.alive:
                continue
            idle = handle.state is State.SERVING and not handle.running
            if at_once or not idle or not handle.send(Stop()):
                handle.kill("the run is over")
                handle.set_deadline(KILL_GRACE)
            else:
                handle.set_deadline(self._rules.stop_timeout)
            self._change(handle, State.STOPPING)

    def _abandon(self, status: Status, reason: str) -> None:
        if self._batch:
            self._batch.abandon(status, reason)
        if self._closing:
            self._close(at_once=True)

    def _break_down(self, error: BaseException) -> None:
        self._give_up_reason = f"The worker pool broke down ({error!r})."
        if self._batch:
            self._batch.abandon("failed", self._give_up_reason)
        for handle in self._handles:
            if handle.alive:
                handle.kill("the worker pool broke down")

    def _change(self, handle: WorkerHandle, state: State) -> None:
        handle.state = state
        self._listener(WorkerState(handle.name, state.value))


def _held(batch: Batch, group: Sequence[ActiveLease]) -> dict[str, tuple[Batch, ActiveLease]]:
    return {active.lease.lease_id: (batch, active) for active in group}
