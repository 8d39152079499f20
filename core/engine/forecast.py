"""Forecasts when workers are free, and whether a task should run twice. No clock of its own."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest

from core.engine.pending import Peer
from core.engine.task_state import ActiveAttempt
from core.engine.task_times import TaskTimes
from core.engine.worker_slot import WorkerSlot

WORTH_A_COPY = 0.8  # of the time that the first run should still take
MOST_LATE = 256  # attempts among which an idle worker looks for one to copy
LATE_SAVING = 5.0  # seconds: a large picture on a slow disk takes two or three


def peers(slots: Sequence[WorkerSlot], times: TaskTimes, now: float) -> tuple[Peer, ...]:
    """All workers of a model with their speed, or none while no task has been timed."""
    found = []
    for slot in slots:
        rate = times.seconds_per_work(slot.name)
        if rate is not None:
            found.append(Peer(slot.name, busy_for(slot, rate, now), rate, slot.loras_soon))
    return tuple(found)


def busy_for(slot: WorkerSlot, rate: float, now: float) -> float:
    """Seconds until a worker should have done everything that it was given."""
    return _left(slot, rate, now) + slot.work_ahead * rate


def surely_busy_until(slot: WorkerSlot, times: TaskTimes, seconds: float) -> float:
    """Monotonic time until which a worker has something to do, even if tasks take half their time.

    It is endless where what it begins next takes longer than `seconds`, for the present one may
    end at any moment; but it must have that already, as it must have what it runs.
    """
    rate = times.own_seconds_per_work(slot.name)
    if rate is None or not slot.running:
        return -math.inf
    if not all(active.sent for active in slot.running.values()):
        return -math.inf
    has_next = all(active.sent for active in slot.ahead.values())
    if has_next and seconds < rate * slot.work_ahead / 2:
        return math.inf
    return slot.busy_since + rate * slot.work / 2


def _left(slot: WorkerSlot, rate: float, now: float) -> float:
    """Remaining seconds. Overdue work is assumed to need as long again as it is overdue."""
    if slot.keeping is not None and slot.model is not None:
        return abs(slot.model.times.load_seconds - (now - slot.busy_since))
    if not slot.running:
        return 0.0
    return abs(slot.work * rate - (now - slot.busy_since))


@dataclass(frozen=True)
class Late:
    """An attempt that a slot has in hand, and the seconds that it should still take."""

    slot: WorkerSlot
    seconds: float
    active: ActiveAttempt


def in_hand(slots: Iterable[WorkerSlot], times: TaskTimes, now: float) -> list[Late]:
    """The attempts of slots that end last, these first; not those of groups, nor of copied tasks.

    All of them, of up to some hundred slots.
    """
    found = (
        Late(slot, seconds, active)
        for slot in slots
        if (rate := times.seconds_per_work(slot.name)) is not None
        for seconds, active in _ends(slot, rate, now)
        if not active.task.copied
    )
    return nlargest(MOST_LATE, found, key=lambda late: late.seconds)


def worth_copying(
    idle: WorkerSlot, in_hand: Iterable[Late], times: TaskTimes
) -> Iterator[ActiveAttempt]:
    """Attempts of which `idle` should end a copy well before they end, the last to end first.

    Of what was in hand, as far as it still is.
    """
    own = times.seconds_per_work(idle.name)
    if own is None:
        return
    for late in in_hand:
        active, seconds = late.active, late.seconds
        if late.slot is idle or late.slot.held(active.lease_id) is not active:
            continue
        load = len(active.admitted.loads - idle.loras) * times.load_seconds
        if load + active.admitted.work * own <= WORTH_A_COPY * seconds:
            yield active


def _ends(slot: WorkerSlot, rate: float, now: float) -> Iterator[tuple[float, ActiveAttempt]]:
    """Seconds that each attempt should still take; not those of groups."""
    for held, seconds in (
        (slot.running, _left(slot, rate, now)),
        (slot.ahead, busy_for(slot, rate, now)),
    ):
        if len(held) == 1:
            yield seconds, next(iter(held.values()))
    saving = now - slot.saving_since
    if saving > LATE_SAVING:
        for active in slot.saving.values():
            yield saving, active
