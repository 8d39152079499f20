"""What a worker gets now: the next tasks, a copy of somebody's last one, or nothing yet."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from core.engine import forecast
from core.engine.backend import WorkerBackend
from core.engine.job_run import JobRun
from core.engine.lora_keeper import LoraKeeper
from core.engine.pending import Peer, Pending, Worker
from core.engine.scheduler import Scheduler
from core.engine.served_model import ServedModel
from core.engine.slots import SURE, Group, Slots
from core.engine.tail import MOST_PEERS, TAIL, in_tail
from core.engine.task_state import ActiveAttempt, TaskState
from core.engine.worker_slot import WorkerSlot
from core.fault_points import fault_point
from core.messages import encode

COPY_LOOKS = 0.1  # seconds between looks of an idle worker at what others are late with
LATE_LASTS = 5e-5  # seconds for each slot, for which the list of what all are late with is good
SHORT = 2.0  # seconds of expected work that may wait in a worker, and that it may wait behind
MOST_BYTES = 24 * 1024  # of leases that another one may follow; ten times that fits into the pipe


@dataclass
class _Group:
    """Attempts that a worker is to run together, on their way into the record."""

    slot: WorkerSlot
    attempts: list[ActiveAttempt]
    complete: bool = False  # no attempt more will join
    unanswered: int = 0  # their leases are not in the record yet


class Dispatcher:
    """Gives waiting tasks to workers, each after its lease has been recorded.

    Args:
        slots: all of the engine's.
        find: the job and the task that the scheduler has given out.
        run_of: an attempt's job, unless that has ended.
        loras: tells workers of LoRAs between their tasks.
        copies: the last tasks may run twice.
    """

    def __init__(
        self,
        slots: Slots,
        scheduler: Scheduler,
        backend: WorkerBackend,
        find: Callable[[Pending], tuple[JobRun, TaskState]],
        run_of: Callable[[ActiveAttempt], JobRun | None],
        loras: LoraKeeper,
        copies: bool,
    ) -> None:
        self._slots = slots
        self._scheduler = scheduler
        self._backend = backend
        self._find = find
        self._run_of = run_of
        self._loras = loras
        self._copies = copies
        # While slots are given tasks, by model:
        self._found_peers: dict[str, tuple[Peer, ...]] = {}  # until one of them is given a task
        self._found_fastest: dict[str, float] = {}
        self._looks: Counter[str] = Counter()  # of idle slots at what others are late with
        # Made of all slots, so it is good for longer the more there are: until when, and what.
        self._found_late: dict[str, tuple[float, Sequence[forecast.Late]]] = {}

    def give_to_all(self) -> None:
        """Give every slot what it should have now."""
        self._look_anew()
        busy: tuple[Group, ...] = ("short of work",) if self._may_give_ahead() else ()
        slots = self._slots.of("ordered", "free", *busy)
        if len(slots) > MOST_PEERS:  # not all may look for late tasks now: whose look is oldest
            slots.sort(key=lambda slot: slot.looks_again_at)
        for slot in slots:
            self._give_to(slot)

    def _may_give_ahead(self) -> bool:
        """Whether so many tasks wait that busy workers may be given some."""
        return any(
            self._scheduler.waiting(name) > TAIL * len(self._slots.serving(name))
            for name in self._slots.models_at_work
        )

    def give_to(self, slot: WorkerSlot) -> None:
        """Give a slot what it should have now: for its device, and to go on with then."""
        self._look_anew()
        self._give_to(slot)

    def _look_anew(self) -> None:
        self._found_peers.clear()
        self._found_fastest.clear()
        self._looks.clear()
        now = time.monotonic()
        self._found_late = {n: late for n, late in self._found_late.items() if now < late[0]}

    def _give_to(self, slot: WorkerSlot) -> None:
        if slot.orders:  # before its next task, and behind all that it has already
            if not slot.running and slot.is_open and not self._backend.is_gone(slot.name):
                self._loras.send_next(slot)
            return
        # What is set counts as changed, and would be looked at once more.
        if not slot.running and slot.is_open and (group := self._group_for(slot)):
            slot.running = _held(group)
        if slot.running and not slot.ahead and (group := self._group_ahead_for(slot)):
            slot.ahead = _held(group)

    def began(self, slot: WorkerSlot) -> None:
        """Note that a slot's device begins something new: set its deadline."""
        assert slot.model is not None
        slot.busy_since = time.monotonic()
        slot.set_deadline(slot.model.times.allowed(slot.name, slot.work, slot.may_compile))

    def may_come_to_idle(self) -> bool:
        """Whether a worker is idle that might get a task by the passing of time alone."""
        if not self._slots.any_of("at work"):
            return False
        free = self._slots.of("free")
        return any(s.wanted and s.model is not None and s.model.barrier is None for s in free)

    @property
    def all_are_provided_for(self) -> bool:
        """Whether tasks wait, and no worker's device can run dry for `SURE` seconds; one that loads
        might.

        Where none waits, there is little to decide, and somebody waits for each result.
        """
        if time.monotonic() + SURE >= self._slots.sure_until:
            return False
        return any(map(self._scheduler.waiting, self._slots.models_at_work))

    # -- what ------------------------------------------------------------------

    def _group_for(self, slot: WorkerSlot) -> list[ActiveAttempt]:
        """Choose attempts that a free worker shall run together; empty if it has to wait."""
        model = slot.model
        assert model is not None
        if model.barrier is None:
            return self._next(slot, model) or self._copy(slot, model)
        if not self._scheduler.waiting(model.name):
            return []
        busy = frozenset(s.name for s in self._slots if s.model is model and s.attempts())
        if not model.barrier.may_start(slot.name, busy):
            return []
        group = self._next(slot, model)
        if group:
            model.barrier.started(slot.name)
        return group

    def _group_ahead_for(self, slot: WorkerSlot) -> list[ActiveAttempt]:
        """Choose attempts that a busy worker goes on with, so that its device waits for nobody.

        Only short ones behind short ones, for no slow worker, and while there are plenty: what is
        given is not taken back, neither for a better worker nor when the user interrupts.
        Dear looks come last: every slot is asked about in every turn, and mostly gets nothing.
        """
        model = slot.model
        assert model is not None
        rate = model.times.seconds_per_work(slot.name)
        if model.barrier is not None or rate is None or slot.may_compile:
            return []
        if slot.work * rate > SHORT:
            self._slots.has_enough(slot)
            return []
        plenty, waiting = max(TAIL, 2 * slot.group_size), self._scheduler.waiting(model.name)
        if waiting <= plenty:
            return []
        serving = self._slots.serving(model.name)
        if waiting <= plenty * len(serving) or not slot.is_open:
            return []
        if not model.times.keeps_up(slot.name, self._fastest(model)):
            return []
        if not slot.loras_soon <= slot.loras:
            return []  # it is loading one, and which it will hold then it alone knows
        # With orders unread the pipe might be full, and a send would wait.
        if not self._backend.reads_along(slot.name):
            return []
        return self._next(slot, model, SHORT / slot.group_size / rate if rate else math.inf)

    def _next(
        self, slot: WorkerSlot, model: ServedModel, most_work: float = math.inf
    ) -> list[ActiveAttempt]:
        waiting = self._scheduler.waiting(model.name)
        if not waiting or self._backend.is_gone(slot.name):
            return []
        serving = self._slots.serving(model.name)
        has_peers = model.barrier is None and in_tail(waiting, len(serving))
        worker = Worker(
            slot.name,
            slot.loras,
            others=self._slots.names(model.name),
            loras_elsewhere=self._loras_elsewhere(slot, model),
            peers=self._peers(model) if has_peers else (),
            load_seconds=model.times.load_seconds,
            has_others=bool(slot.attempts()),
            most_work=most_work,
            model=model.name,
        )
        # The last tasks are shared out, so that no worker idles beside a full group.
        return self._together(slot, worker, min(slot.group_size, -(-waiting // len(serving))))

    def _loras_elsewhere(self, slot: WorkerSlot, model: ServedModel) -> frozenset[str]:
        if not self._scheduler.has_loras(model.name):
            return frozenset()  # no task that waits goes by them
        return self._slots.loras_elsewhere(slot, model.name)

    def _together(self, slot: WorkerSlot, worker: Worker, most: int) -> list[ActiveAttempt]:
        """Begin up to `most` attempts that may run at once; a suspected task runs alone."""
        first = self._scheduler.take(worker)
        if first is None:
            return []
        group, size = _Group(slot, []), 0
        pending: Pending | None = first
        while pending is not None:
            active = self._begin(group, *self._find(pending))
            pending = None
            if most > 1 and len(group.attempts) < most and not active.alone:
                size += len(encode(active.lease))
                pending = self._scheduler.take_with(first, worker) if size < MOST_BYTES else None
        self._close(group)
        return group.attempts

    def _copy(self, slot: WorkerSlot, model: ServedModel) -> list[ActiveAttempt]:
        """A second run of somebody's last task, where this worker would only wait for it."""
        now = time.monotonic()
        if self._scheduler.waiting(model.name) or not self._copies or now < slot.looks_again_at:
            return []
        if self._backend.is_gone(slot.name):
            return []
        self._looks[model.name] += 1
        if self._looks[model.name] > MOST_PEERS:  # others look in the turns that follow
            return []
        slot.looks_again_at = now + COPY_LOOKS
        for first in forecast.worth_copying(slot, self._late(model, now), model.times):
            run = self._run_of(first)
            if run is not None and run.may_copy(first.task):
                first.task.copied = True
                group = _Group(slot, [])
                self._begin(group, run, first.task)
                self._close(group)
                return group.attempts
        return []

    def _fastest(self, model: ServedModel) -> float:
        """Seconds per unit of work of the fastest slot that takes tasks of a model."""
        found = self._found_fastest.get(model.name)
        if found is None:
            found = model.times.fastest(slot.name for slot in self._slots.serving(model.name))
            self._found_fastest[model.name] = found
        return found

    def _late(self, model: ServedModel, now: float) -> Sequence[forecast.Late]:
        """What slots of a model have in hand, the last to end first."""
        found = self._found_late.get(model.name)
        if found is None:
            serving = self._slots.serving(model.name)
            late = forecast.in_hand(serving, model.times, now)
            found = self._found_late[model.name] = now + LATE_LASTS * len(serving), late
        return found[1]

    def _peers(self, model: ServedModel) -> tuple[Peer, ...]:
        """Slots that take tasks of a model with their speed, and when each is free."""
        found = self._found_peers.get(model.name)
        if found is None:
            peers = forecast.peers(self._slots.serving(model.name), model.times, time.monotonic())
            found = self._found_peers[model.name] = peers
        return found

    # -- into the record, and on their way ---------------------------------------

    def _begin(self, group: _Group, run: JobRun, task: TaskState) -> ActiveAttempt:
        def answered(active: ActiveAttempt, counts: bool) -> None:
            group.unanswered -= 1
            if not counts and group.slot.held(active.lease_id) is active:
                group.slot.drop(active.lease_id)
                group.slot.go_on()
            self._send_if_ready(group)

        self._found_peers.clear()
        group.unanswered += 1
        active = run.attempts.begin(task, group.slot.name, answered)
        group.attempts.append(active)
        return active

    def _close(self, group: _Group) -> None:
        group.complete = True
        self._send_if_ready(group)

    def _send_if_ready(self, group: _Group) -> None:
        """Send what the record has, if the slot's worker still is the one that it was for."""
        if not group.complete or group.unanswered:
            return
        slot = group.slot
        here = [active for active in group.attempts if slot.held(active.lease_id) is active]
        fault_point("main.lease")
        for active in here:
            last = active is here[-1]
            lease = active.lease if last else replace(active.lease, more_follow=True)
            active.sent = self._backend.send(slot.name, lease)
        slot.touch()
        if here and here[0].lease_id in slot.running:
            self.began(slot)


def _held(group: Sequence[ActiveAttempt]) -> dict[str, ActiveAttempt]:
    return {active.lease_id: active for active in group}
