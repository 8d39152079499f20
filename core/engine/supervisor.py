"""The lives of workers: start, load, deadlines, deaths, restarts, and the end.

Policy over slots and a backend; no process in here. Called from the engine's thread alone.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from loguru import logger

from core.details import detail
from core.engine.attempts import WorkerLoss
from core.engine.backend import Died, WorkerBackend
from core.engine.fetch import Fetch
from core.engine.lora_keeper import LoraKeeper
from core.engine.memory_release import MemoryRelease
from core.engine.served_model import ServedModel
from core.engine.slots import Slots
from core.engine.task_state import ActiveAttempt
from core.engine.worker_slot import State, WorkerSlot
from core.events import Listener, WorkerState
from core.fault_points import fault_point
from core.memory_modes import Mode
from core.messages import LASTING, FailureKind, Load, Loaded, LoadFailed, Ready, Stop
from core.settings import SupervisionSettings

STALL_CHECKS = 4  # looks at a loading worker within the time in which it has to get on


class Supervisor:
    """Keeps a worker in every slot that is to have one.

    Args:
        slots: all of the engine's.
        loras: tells workers of LoRAs, and is told what became of them.
        on_lost: told of an attempt whose worker is gone, and whether its task may be to blame.
        on_given_up: told of a model that nobody serves any more: its name, the reason, and the
            reason in short for the log.
        on_changed_memory: told of a model whose tasks are to be made anew for another memory mode.
        keeps_results: results of a model are there, which belong to its memory mode of today.
        tell_later: tells the listener from the engine's thread; called from any.
    """

    def __init__(
        self,
        slots: Slots,
        backend: WorkerBackend,
        rules: SupervisionSettings,
        listener: Listener,
        release: MemoryRelease,
        loras: LoraKeeper,
        on_lost: Callable[[ActiveAttempt, WorkerLoss, bool], None],
        on_given_up: Callable[[ServedModel, str, str | None], None],
        on_changed_memory: Callable[[ServedModel, Mode], None],
        keeps_results: Callable[[ServedModel], bool],
        tell_later: Listener,
    ) -> None:
        self._tell_later = tell_later
        self._slots = slots
        self._backend = backend
        self._rules = rules
        self._listener = listener
        self._release = release
        self._loras = loras
        self._on_lost = on_lost
        self._on_given_up = on_given_up
        self._on_changed_memory = on_changed_memory
        self._keeps_results = keeps_results
        self.closing = False

    # -- what workers say ------------------------------------------------------

    def ready(self, slot: WorkerSlot, message: Ready) -> None:
        """A worker is up."""
        detail(
            f"{slot.name}: pid {message.pid}, {message.device_name} ({message.device_uuid}), "
            f"CUDA_VISIBLE_DEVICES={message.visible_devices!r}, up in {message.boot_seconds:.1f} s"
        )
        if not slot.on_its_way_out:
            slot.set_deadline(None)
            self._change(slot, State.BOOTED)

    def loaded(self, slot: WorkerSlot, message: Loaded) -> None:
        """A worker has its model."""
        detail(f"{slot.name}: {message.model_class} in {message.seconds:.1f} s")
        if not slot.on_its_way_out:
            assert slot.model is not None
            slot.set_deadline(None)
            slot.model.has_served = True
            slot.model.loads += 1
            slot.serving_since = time.monotonic()
            slot.model.load_seconds = slot.serving_since - slot.started_at
            self._change(slot, State.SERVING)
            self._loras.worker_loaded(slot)

    def load_failed(self, slot: WorkerSlot, message: LoadFailed) -> None:
        """A worker could not load its model."""
        reason = f"the model could not be loaded: {message.error}"
        if message.kind == "out_of_memory" and not slot.on_its_way_out:
            self._needs_less_memory(slot, reason)
        else:
            self.cannot_serve(slot, message.kind, reason, message.everywhere)

    def cannot_serve(
        self, slot: WorkerSlot, kind: FailureKind, reason: str, everywhere: bool = False
    ) -> None:
        """A worker cannot do its work, and ends itself."""
        assert slot.model is not None
        if slot.on_its_way_out:
            logger.error(f"{slot.name}: {reason}")
        elif everywhere and not slot.model.has_served:
            self.give_up(slot.model, f"{slot.name}: {reason}")
        elif kind in LASTING or everywhere:  # no other try would change anything
            self._retire(slot, reason)
        else:
            logger.error(f"{slot.name}: {reason}")
            self.expect_to_leave(slot, reason)

    def expect_to_leave(self, slot: WorkerSlot, reason: str) -> None:
        """A worker said that it ends itself, to come again with a fresh device context."""
        slot.leaves_because = reason
        if not slot.on_its_way_out:
            slot.set_deadline(self._rules.stop_timeout)
            self._change(slot, State.STOPPING)

    def _needs_less_memory(self, slot: WorkerSlot, reason: str) -> None:
        """Load once in a mode that takes less memory, or give up: a try more would end the same."""
        model = slot.model
        assert model is not None
        fit = model.memory.fit if model.memory else None
        may_change = fit is not None and not slot.standing.has_changed_memory
        if fit and may_change and fit.same_pixels:
            mode = fit.same_pixels[0]
            logger.warning(
                f"{slot.name}: {reason} It loads the model in memory mode {mode} instead: the "
                "same pictures, more slowly."
            )
            slot.load_smaller(mode)
            model.change_memory(mode)
            self.expect_to_leave(slot, reason)
        elif fit and may_change and fit.other_pixels and not self._keeps_results(model):
            logger.warning(f"{slot.name}: {reason}")
            self.expect_to_leave(slot, reason)
            self._change_memory(model, fit.other_pixels)
        else:
            why = fit.refusal(slot.device, slot.memory) if fit else ""
            self._retire(slot, f"{reason} {why}".rstrip())

    def _change_memory(self, model: ServedModel, mode: Mode) -> None:
        """All workers load in another mode, so that a picture is the same whoever draws it."""
        reason = f"all workers load the model in memory mode {mode} now"
        logger.warning(f"Memory: {reason}; it was not enough for the one before.")
        self._on_changed_memory(model, mode)
        model.change_memory(mode)
        for slot in self._slots:
            if slot.model is model:
                slot.load_smaller(mode)
                if slot.alive and not slot.on_its_way_out:
                    self.kill(slot, reason)

    # -- deadlines ---------------------------------------------------------------

    def forgive(self, seconds: float) -> None:
        """The engine was held up so long (stopped, for one): no worker shall pay for it."""
        if seconds > 0:
            for slot in self._slots:
                slot.forgive(seconds)

    def check_all(self, now: float) -> None:
        """End workers that are late, or stand still while they load, and mind the drained slots."""
        for slot in self._slots.late(now):
            if slot.alive:
                self._deadline_passed(slot)
        for slot in self._slots.of("loading"):
            if slot.kill_reason is None:
                self._check_load(slot, now)
        for slot in self._slots.of("drained"):
            self._mind_the_drain(slot)

    def _deadline_passed(self, slot: WorkerSlot) -> None:
        if self._backend.has_word(slot.name):
            return
        if slot.kill_reason is not None:  # killed, and still not dead: stuck in the kernel
            self._retire(slot, "it does not react to SIGKILL")
            self.buried(slot, Died(slot.name, "it does not react to SIGKILL"))
            return
        what = "the task" if slot.state is State.SERVING else slot.state.value
        if slot.keeping is not None:
            self._loras.hung(slot)
            what = "loading a LoRA"
        self.kill(slot, f"{what} took longer than allowed")

    def _check_load(self, slot: WorkerSlot, now: float) -> None:
        """A load may take an hour, but not stand still: others may be waiting for their turn."""
        if self._backend.has_word(slot.name):
            return
        seen = self._backend.progress(slot.name)
        if seen != slot.load_seen:
            slot.load_seen, slot.load_seen_at = seen, now
        elif now - slot.load_seen_at >= self._rules.load_stall_timeout:
            self.kill(slot, "loading the model made no progress")

    def kill(self, slot: WorkerSlot, reason: str) -> None:
        """End a worker, whatever it is doing."""
        slot.kill_reason = reason
        self._backend.kill(slot.name)
        slot.set_deadline(self._rules.kill_timeout)

    # -- deaths ------------------------------------------------------------------

    def buried(self, slot: WorkerSlot, death: Died) -> None:
        """A worker is gone: its attempts are lost, and the slot starts again, or does not."""
        reason = death.how
        if slot.leaves_because and slot.kill_reason is None and not death.by_sigkill:
            reason += f" ({slot.leaves_because})"
        hung = slot.kill_reason is not None
        expected = self.closing or not slot.wanted or slot.state is State.RETIRED
        if slot.kill_reason is not None:
            reason = slot.kill_reason
        attempts = slot.attempts()
        self._loras.died(slot, death, ordered=hung)
        # Who announced its leaving has named the culprit; who lost its server knows none.
        innocent = death.blameless or slot.leaves_because is not None
        running = {i for i, active in slot.running.items() if active.sent}
        on_device = bool(running) or slot.keeping is not None
        never_begun = {a.lease_id for a in attempts if not a.sent} | slot.ahead.keys()
        self._backend.forget(slot.name)
        slot.buried()
        if not expected:
            slot.restarts += 1
            logger.warning(f"{slot.name}: {reason}.")
        loss = WorkerLoss(f"{slot.name}: {reason}", death.by_sigkill, hung)
        for active in attempts:
            # A crash may come of a result that is being saved, too; a deadline is the task's own.
            suspect = not on_device or active.lease_id in running or not hung
            blamed = suspect and not innocent and active.lease_id not in never_begun
            self._on_lost(active, loss, blamed)
        if self.closing or not slot.wanted:
            self._change(slot, State.DRAINED if slot.drained else State.STOPPED)
        elif slot.state is not State.RETIRED:
            self._plan_restart(slot, reason)

    def _plan_restart(self, slot: WorkerSlot, reason: str) -> None:
        model = slot.model
        assert model is not None
        is_last = not any(s is not slot and s.can_serve(model) for s in self._slots)
        deaths = slot.standing.deaths
        wait = deaths.after_death(self._rules, is_last)
        if wait is None:
            self._retire(slot, f"it dies again and again, the last time: {reason}")
            return
        if wait > 0:
            logger.warning(
                f"{slot.name}: start {deaths.in_row + 1} in a row follows in {wait:.1f} s."
            )
        slot.start_at = time.monotonic() + wait
        self._change(slot, State.DOWN)

    # -- starts ------------------------------------------------------------------

    def start_all(self, now: float) -> None:
        """Start workers where there are none and they are wanted, and let them load."""
        for slot in self._slots.of("down"):
            if not slot.alive and not self.closing:
                self._start_if_due(slot, now)
        self._grant_loads()

    def _start_if_due(self, slot: WorkerSlot, now: float) -> None:
        if now < slot.start_at or not self._release.is_free(slot) or not self.could_start(slot):
            return
        spec = slot.next_spec()
        self._release.starts(slot)
        try:
            self._backend.start(slot.name, slot.device, spec)
        except Exception as error:  # out of processes, threads, memory or file descriptors
            logger.warning(f"{slot.name}: could not be started: {error}")
            self._plan_restart(slot, f"could not be started: {error}")
            return
        slot.started(spec)
        fault_point("main.boot")
        slot.set_deadline(self._rules.boot_timeout)
        self._change(slot, State.BOOTING)

    def could_start(self, slot: WorkerSlot) -> bool:
        """Whether a slot's worker can be started now.

        Not while its model is being downloaded, nor while the hub is asked for a model whose
        configs say how its workers have to be started.
        """
        if slot.model is None or not self._backend.ready or self._release.holds_up(slot):
            return False
        others = self._slots if slot.gpus else ()
        if any(other.alive and self.excludes(slot, other) for other in others):
            return False
        fetch = slot.model.fetch
        return fetch is None or not (fetch.transfers or slot.next_spec().saved_with is None)

    def excludes(self, slot: WorkerSlot, other: WorkerSlot) -> bool:
        """The two have a device in common and are not meant to share it: one waits for the other.

        They are of models that share the devices out in different ways.
        """
        if other is slot or not slot.gpus & other.gpus:
            return False
        models = [m for m in (slot.model, other.model) if m is not None]
        return not any({slot.name, other.name} <= m.slots for m in models)

    def _grant_loads(self) -> None:
        """Let workers load, as many at once as their model's files and the memory allow."""
        for model in {id(s.model): s.model for s in self._slots.of("booted")}.values():
            if model is None or model.awaits_files:
                continue
            ours = [s for s in self._slots if s.model is model]
            for node in {s.device.node for s in ours}:  # each reads its own files
                self._grant_loads_on([s for s in ours if s.device.node == node], model)

    def _grant_loads_on(self, ours: Sequence[WorkerSlot], model: ServedModel) -> None:
        loading = sum(s.state is State.LOADING for s in ours)
        waiting = [s for s in ours if s.state is State.BOOTED and s.kill_reason is None]
        if waiting:
            free = model.turns.at_once(model.has_served) - loading
            for slot in waiting[: max(0, free)]:
                fault_point("main.load")
                self._backend.send(slot.name, Load(model.folder))
                slot.set_deadline(self._rules.load_timeout)
                slot.load_seen = self._backend.progress(slot.name)
                slot.load_seen_at = time.monotonic()
                self._change(slot, State.LOADING)

    def fetch(self, models: Iterable[ServedModel]) -> None:
        """Begin to bring hub models here, one after the other: each has the whole line."""
        before: Fetch | None = None
        for model in models:
            if not model.fetch_has_begun:
                model.fetch_has_begun = True
                fetch = self._backend.fetch(model.usual_spec, self._tell_later)
                if fetch is not None:
                    model.fetch = fetch
                    fetch.on_change = self._backend.wake
                    fetch.start(before)
            before = model.fetch or before

    def mind_the_fetch(self, model: ServedModel) -> None:
        """Note that a hub's model has come, or give the model up if it cannot be had."""
        fetch = model.fetch
        if fetch is None or self.closing:
            return
        if fetch.refusal is not None and not any(slot.model is model for slot in self._slots):
            # Other work goes on, which leaves time to mend it: it is asked for again then.
            logger.warning(f"The model to {model.name} with cannot be had as yet: {fetch.refusal}")
            model.fetch, model.fetch_has_begun = None, False
        elif fetch.refusal is not None:
            self.give_up(model, f"The model could not be loaded: {fetch.refusal}")
        elif fetch.folder is not None:
            model.arrived(fetch.folder)

    # -- giving up ---------------------------------------------------------------

    def _retire(self, slot: WorkerSlot, reason: str) -> None:
        """Give a slot up for its model, for good."""
        model = slot.model
        assert model is not None
        if slot.state is State.RETIRED or slot.standing.unfit is not None:
            return
        self._use_no_more(slot, reason)
        logger.error(f"{slot.name} is given up: {reason}")
        if not any(s.can_serve(model) for s in self._slots):
            self._nobody_is_left(model, f"{slot.name}: {reason}")

    def give_up(self, model: ServedModel, reason: str) -> None:
        """Give up all of a model's workers for what each of them would meet; say so once."""
        for slot in self._slots:
            if slot.can_serve(model):
                slot.standing_with(model).unfit = reason
                if slot.model is model:
                    self._use_no_more(slot, reason)
        logger.error(f"{reason} All workers are given up.")
        self._nobody_is_left(model, reason)

    def _use_no_more(self, slot: WorkerSlot, reason: str) -> None:
        slot.standing.unfit = reason
        self._loras.given_up(slot)
        self._change(slot, State.RETIRED)
        if slot.alive and slot.kill_reason is None:
            self.kill(slot, reason)

    def _nobody_is_left(self, model: ServedModel, last_loss: str) -> None:
        model.given_up = f"No worker is left; the last one: {last_loss}"
        model.stop_fetching()
        self._on_given_up(model, model.given_up, "No worker is left.")

    # -- machines that come and go -------------------------------------------------

    def drain_all(self, slots: Iterable[WorkerSlot]) -> None:
        """Drain the slots of a machine that will go."""
        for slot in slots:
            if slot.lost is None:
                self.drain(slot)

    def lost(self, slots: Sequence[WorkerSlot], models: Iterable[ServedModel], reason: str) -> None:
        """A machine is gone with its slots, whose workers are buried; others go on."""
        for slot in slots:
            slot.lost = reason
            if slot.model is not None:
                self._loras.given_up(slot)
            self._change(slot, State.RETIRED)
        if slots and not self.closing:
            logger.warning(f"{slots[0].device.node}: lost: {reason}.")
        for model in models:
            if model.given_up is None and not any(s.can_serve(model) for s in self._slots):
                self._nobody_is_left(model, reason)

    # -- another model, or none --------------------------------------------------

    def let_go(self, slot: WorkerSlot) -> None:
        """Stop a worker that has nothing to do, so that its slot gets another model or rests."""
        if not slot.alive or slot.attempts() or slot.publishing or slot.keeping is not None:
            return
        if slot.state is State.SERVING and self._backend.send(slot.name, Stop()):
            self._change(slot, State.STOPPING)
            slot.set_deadline(self._rules.stop_timeout)
        elif slot.state is not State.STOPPING and slot.kill_reason is None:
            self.kill(slot, "it is not needed any more")

    def give_model(self, slot: WorkerSlot, model: ServedModel) -> None:
        """Give a slot without a worker the model that its next worker loads."""
        assert not slot.alive
        if slot.model is not None and slot.model is not model:
            self._release.left(slot, time.monotonic())
            model.switches += 1
        if slot.model is not model:
            slot.orders.clear()
        slot.model, slot.wanted = model, True
        slot.start_at = 0.0
        self._backend.prepare(slot.next_spec())
        self.fetch([model])
        if slot.state is not State.DOWN:  # it is said of a slot that had a worker
            self._change(slot, State.DOWN)

    def drain(self, slot: WorkerSlot) -> None:
        """Let a slot's worker finish what it has, and leave; nothing more is given to it."""
        slot.drained, slot.comes_back, slot.wanted = True, False, False
        self.let_go(slot)
        if not slot.alive and slot.state in (State.DOWN, State.STOPPED):
            self._change(slot, State.DRAINED)

    def undrain(self, slot: WorkerSlot) -> None:
        """Let a slot have a worker again, with the model that it had."""
        if slot.drained:
            slot.drained, slot.comes_back = False, True
            self._mind_the_drain(slot)

    def _mind_the_drain(self, slot: WorkerSlot) -> None:
        """Let a drained slot's worker go as soon as it can, and one that is wanted again come."""
        if slot.drained:
            self.let_go(slot)
        elif slot.comes_back and not slot.alive:
            slot.comes_back, slot.wanted = False, True
            if slot.model is not None and slot.can_serve(slot.model):
                self.give_model(slot, slot.model)
            elif slot.state is State.DRAINED:
                self._change(slot, State.DOWN if slot.model is None else State.RETIRED)
        elif slot.comes_back and not slot.on_its_way_out:  # it had not left yet
            slot.comes_back, slot.wanted = False, True

    def close(self, at_once: bool) -> None:
        """Send the poison pill to workers that have nothing to do; kill the others, or all."""
        self.closing = True
        for slot in self._slots:
            if not slot.alive:
                continue
            idle = slot.state is State.SERVING and not slot.running and slot.keeping is None
            if at_once or not idle or not self._backend.send(slot.name, Stop()):
                self.kill(slot, "the run is over")
            else:
                slot.set_deadline(self._rules.stop_timeout)
            self._change(slot, State.STOPPING)

    def _change(self, slot: WorkerSlot, state: State) -> None:
        slot.state = state
        kind = slot.model.name if slot.model is not None else None
        self._listener(WorkerState(slot.name, state.value, kind))
