"""Acts on what workers report: results, failures, readiness, deaths."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from core.engine.attempts import WorkerLoss
from core.engine.backend import Died, OfSlot, Report, Said
from core.engine.dispatcher import Dispatcher
from core.engine.job_table import JobTable
from core.engine.lora_keeper import LoraKeeper
from core.engine.supervisor import Supervisor
from core.engine.task_state import ActiveAttempt
from core.engine.worker_log import WorkerLog
from core.engine.worker_slot import WorkerSlot
from core.events import TaskPreview, TaskProgress
from core.messages import (
    BootFailed,
    Compiling,
    Done,
    Failed,
    Generated,
    Kept,
    LibraryWarning,
    Loaded,
    LoadFailed,
    Log,
    Preview,
    PromptCut,
    Ready,
    StepsDone,
)
from core.store.outputs import preview_of


def concerns_no_decision(report: Report) -> bool:
    """It is for the user's eyes alone, and leaves everything as it is."""
    return isinstance(report, Said) and isinstance(report.message, StepsDone)


class WorkerReports:
    """Passes on what comes from workers: to the supervisor, the jobs, the log and who listens.

    Args:
        saving_timeout: seconds in which a result that was made has to be saved.
    """

    def __init__(
        self,
        slots: Iterable[WorkerSlot],
        supervisor: Supervisor,
        dispatcher: Dispatcher,
        jobs: JobTable,
        loras: LoraKeeper,
        saving_timeout: float,
    ) -> None:
        self._slots = {slot.name: slot for slot in slots}
        self._supervisor = supervisor
        self._dispatcher = dispatcher
        self._jobs = jobs
        self._loras = loras
        self._saving_timeout = saving_timeout
        self.log = WorkerLog()

    def add_slot(self, slot: WorkerSlot) -> None:
        """Hear one more slot."""
        self._slots[slot.name] = slot

    def receive(self, report: OfSlot) -> None:
        """Act on what a backend reports of one slot."""
        slot = self._slots[report.slot]
        if isinstance(report, Died):
            self._supervisor.buried(slot, report)
        elif isinstance(report, Said):
            self._hear(slot, report.message)

    def lost(self, active: ActiveAttempt, loss: WorkerLoss, blamed: bool) -> None:
        """The worker of an attempt is gone; its task may be to blame."""
        run = self._jobs.of(active)
        if run is None:
            active.recorder.discard(active.attempt)
        else:
            run.attempts.lost(active, loss, blamed)

    def _hear(self, slot: WorkerSlot, message: Any) -> None:
        match message:
            case Ready():
                self._supervisor.ready(slot, message)
            case BootFailed(kind, error):
                self._supervisor.cannot_serve(slot, kind, f"it cannot start: {error}")
            case Loaded():
                self._supervisor.loaded(slot, message)
            case LoadFailed():
                self._supervisor.load_failed(slot, message)
            case Compiling():
                self._compiling(slot)
            case StepsDone():
                self._tell_steps(slot, message)
            case Preview():
                self._tell_preview(slot, message)
            case Generated():
                self._generated(slot, message)
            case Kept():
                self._kept(slot, message)
            case Done() | Failed():
                self._ended(slot, message)
            case Log() | LibraryWarning() | PromptCut():
                self.log.write(slot.name, message)

    def _compiling(self, slot: WorkerSlot) -> None:
        if slot.running and not slot.on_its_way_out and slot.model is not None:
            slot.set_deadline(slot.model.times.allowed(slot.name, slot.work, True))

    def _tell_steps(self, slot: WorkerSlot, message: StepsDone) -> None:
        """Tell listeners of steps that are done. A hang is seen by the deadline alone."""
        active = slot.running.get(message.lease_id)
        run = self._jobs.of(active) if active is not None else None
        if active is not None and run is not None:
            task, together = active.admitted.task_id, len(slot.running)
            run.tell(
                TaskProgress(task, slot.name, message.done, message.total, together, active.job)
            )

    def _tell_preview(self, slot: WorkerSlot, message: Preview) -> None:
        """Tell the job's listener of a picture that is there until the attempt ends."""
        active = slot.held(message.lease_id)
        run = self._jobs.of(active) if active is not None else None
        if active is not None and run is not None and not active.thrown_away:
            task, path = active.admitted.task_id, active.attempt.partial_path
            file = preview_of(path, message.number)
            run.tell(TaskPreview(task, slot.name, message.step, message.total, file, active.job))

    def _generated(self, slot: WorkerSlot, message: Generated) -> None:
        """The device is done with an attempt, whose result is still to be saved."""
        model = slot.model
        assert model is not None
        self._loras.holds(slot, message.resident_loras)
        slot.fresh = False
        slot.standing.deaths.after_task()
        model.lora_loads += message.lora_loads
        model.lora_switches += message.lora_switches
        model.waits.append(message.waited)
        active = slot.running.get(message.lease_id)
        if active is not None and message.lora_loads:
            model.loras.paths |= {lora.sha256: lora.path for lora in active.lease.loras}
        if active is not None:
            loads, together = message.lora_loads, len(slot.running)
            model.times.learn(slot.name, active.admitted.work, message.seconds, loads, together)
            self._leave_device(slot, active)

    def _leave_device(self, slot: WorkerSlot, active: ActiveAttempt) -> None:
        """The device is done with an attempt; when with all of its group, it needs another."""
        slot.saving[active.lease_id] = slot.running.pop(active.lease_id)
        slot.saving_since = time.monotonic()
        if not slot.running and not slot.on_its_way_out:
            slot.set_deadline(self._saving_timeout)
            if slot.go_on():
                self._dispatcher.began(slot)
            else:  # before the disk is busy with what it has done
                self._dispatcher.give_to(slot)

    def _kept(self, slot: WorkerSlot, message: Kept) -> None:
        """A worker has loaded, pinned or dropped a LoRA, or could not; now it may have a task."""
        self._loras.kept(slot, message)
        if message.kind == "device":
            self._supervisor.expect_to_leave(slot, message.error)
        elif not slot.on_its_way_out:
            slot.set_deadline(self._saving_timeout if slot.saving else None)
            if not slot.wanted:
                self._supervisor.let_go(slot)
        self._dispatcher.give_to(slot)

    def _ended(self, slot: WorkerSlot, message: Done | Failed) -> None:
        """An attempt has come to its end in its worker: its record follows."""
        if isinstance(message, Failed):
            if message.leaving:
                self._supervisor.expect_to_leave(slot, message.error)
            if message.lease_id in slot.running:  # and not with its result made already
                self._loras.holds(slot, message.resident_loras)
        active = slot.held(message.lease_id)
        if active is None:
            return
        if message.lease_id in slot.running:
            self._leave_device(slot, active)
        slot.drop(message.lease_id)
        if not slot.attempts() and slot.keeping is None and not slot.on_its_way_out:
            slot.set_deadline(None)
        run = self._jobs.of(active)
        if run is None:
            active.recorder.discard(active.attempt)
        elif isinstance(message, Done):
            run.attempts.done(active, message, self._publishing(slot, active))
        else:
            run.attempts.failed(active, message)

    def _publishing(self, slot: WorkerSlot, active: ActiveAttempt) -> Callable[[], None]:
        """Count a result as the slot's until it is recorded; returns what ends that."""
        slot.publishing.add(active.lease_id)
        slot.touch()

        def recorded() -> None:
            slot.publishing.discard(active.lease_id)
            slot.touch()

        return recorded
