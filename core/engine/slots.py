"""The slots of an engine, filed by what there may be to do about them.

A turn of the engine's loop looks at slots that may have something to do, and not at all: of
hundreds most only work. Whatever changes of a slot marks it, and it is filed anew at the next look.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, get_args, overload

from core.engine import forecast
from core.engine.worker_slot import State, WorkerSlot

SURE = 0.03  # seconds for which a device may have enough to do
_OUT_OF_DATE = 64  # times of a heap, before it is made anew
Group = Literal[
    "not sure",
    "ordered",
    "free",
    "short of work",
    "at work",
    "down",
    "booted",
    "loading",
    "drained",
    "without a model",
    "resting",
]
"""What may be to do: see `_groups_of`."""


class _Times:
    """A time of each slot, the earliest first; what is out of date is passed over."""

    def __init__(self) -> None:
        self._now: dict[int, float] = {}  # by number of the slot
        self._heap: list[tuple[float, int]] = []

    def file(self, number: int, time: float | None) -> None:
        if self._now.get(number) != time:
            if time is None:
                del self._now[number]
            else:
                self._now[number] = time
                heapq.heappush(self._heap, (time, number))

            if len(self._heap) > 2 * len(self._now) + _OUT_OF_DATE:
                self._heap = [(at, number) for number, at in self._now.items()]
                heapq.heapify(self._heap)

    @property
    def first(self) -> float:
        """The earliest; infinite where there is none."""
        while self._heap and self._now.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def until(self, time: float) -> list[int]:
        """Numbers of the slots whose time has come."""
        found = set()
        while self.first <= time:
            found.add(heapq.heappop(self._heap))
        for one in found:  # until it is another one
            heapq.heappush(self._heap, one)
        return [number for _, number in found]


class Slots(Sequence[WorkerSlot]):
    """All slots, in their order, and groups of them. Used by the engine's thread alone.

    What a group is made of may be changed while one goes through it.
    """

    def __init__(self) -> None:
        self._all: list[WorkerSlot] = []
        self._changed: set[int] = set()
        self._deadlines = _Times()
        self._sure_until = _Times()
        self._groups: dict[Group, set[int]] = {name: set() for name in get_args(Group)}
        self._groups_of: dict[int, list[Group]] = {}
        self._at_work: dict[int, str] = {}  # the model of each worker
        self._models_at_work: Counter[str] = Counter()
        self._serves: dict[int, str] = {}  # which model's tasks each takes
        self._serving: dict[str, list[WorkerSlot]] = {}
        self._names: dict[str, frozenset[str]] = {}
        self._soon: dict[int, tuple[str, frozenset[str]]] = {}  # its model, and LoRAs
        self._held: dict[str, Counter[str]] = {}  # by model: how many slots hold each LoRA soon

    @overload
    def __getitem__(self, place: int) -> WorkerSlot: ...
    @overload
    def __getitem__(self, place: slice) -> list[WorkerSlot]: ...
    def __getitem__(self, place: int | slice) -> WorkerSlot | list[WorkerSlot]:
        return self._all[place]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[WorkerSlot]:
        return iter(list(self._all))

    def add(self, slot: WorkerSlot) -> None:
        """One more slot, behind the others."""
        slot.is_filed_by(len(self._all), self._changed)
        self._all.append(slot)

    # -- groups ------------------------------------------------------------------

    def of(self, *groups: Group) -> list[WorkerSlot]:
        """The slots that belong to one of some groups, in their order."""
        self._file()
        numbers = set().union(*(self._groups[name] for name in groups))
        return [self._all[number] for number in sorted(numbers)]

    def any_of(self, group: Group) -> bool:
        """Whether some slot belongs to a group."""
        self._file()
        return bool(self._groups[group])

    def has_enough(self, slot: WorkerSlot) -> None:
        """A slot needs nothing behind what it runs, until something of it changes."""
        self._groups["short of work"].discard(slot.number)

    # -- times -------------------------------------------------------------------

    @property
    def next_deadline(self) -> float:
        """Monotonic time of the earliest deadline; infinite where there is none."""
        self._file()
        return self._deadlines.first

    def late(self, now: float) -> list[WorkerSlot]:
        """Slots whose deadline has passed."""
        self._file()
        return [self._all[number] for number in sorted(self._deadlines.until(now))]

    @property
    def sure_until(self) -> float:
        """Monotonic time until which surely no device runs dry that has a worker."""
        self._file()
        return -math.inf if self._groups["not sure"] else self._sure_until.first

    @property
    def models_at_work(self) -> list[str]:
        """Names of the models of all workers."""
        self._file()
        return [name for name, slots in self._models_at_work.items() if slots]

    # -- who serves what ---------------------------------------------------------

    def serving(self, model: str) -> list[WorkerSlot]:
        """Slots that take tasks of a model, in their order."""
        self._file()
        found = self._serving.get(model)
        if found is None:
            numbers = sorted(number for number, name in self._serves.items() if name == model)
            found = self._serving[model] = [self._all[number] for number in numbers]
        return found

    def names(self, model: str) -> frozenset[str]:
        """Names of the slots that take tasks of a model."""
        serving = self.serving(model)
        found = self._names.get(model)
        if found is None:
            found = self._names[model] = frozenset(slot.name for slot in serving)
        return found

    def loras_elsewhere(self, slot: WorkerSlot, model: str) -> frozenset[str]:
        """LoRAs that other slots of a model hold, or are about to load."""
        self._file()
        held, (name, own) = self._held.get(model), self._soon.get(slot.number, ("", _NONE))
        if not held:
            return _NONE
        own = own if name == model else _NONE
        return frozenset(lora for lora, slots in held.items() if slots > (lora in own))

    # -- filing ------------------------------------------------------------------

    def _file(self) -> None:
        while self._changed:
            number = self._changed.pop()
            self._file_one(number, self._all[number])

    def _file_one(self, number: int, slot: WorkerSlot) -> None:
        self._deadlines.file(number, slot.deadline)
        sure = _sure_until(slot)
        self._sure_until.file(number, sure if math.isfinite(sure) else None)
        groups, before = _groups_of(slot, sure), self._groups_of.get(number, [])
        for name in before:
            self._groups[name].discard(number)
        for name in groups:
            self._groups[name].add(number)
        self._groups_of[number] = groups
        self._file_model(number, slot)
        self._file_loras(number, slot)

    def _file_model(self, number: int, slot: WorkerSlot) -> None:
        at_work = slot.model.name if slot.alive and slot.model is not None else ""
        before = self._at_work.get(number, "")
        if at_work != before:
            self._at_work[number] = at_work
            self._models_at_work[before] -= bool(before)
            self._models_at_work[at_work] += bool(at_work)
        serves = slot.state is State.SERVING and slot.wanted and slot.model is not None
        name = slot.model.name if serves and slot.model is not None else None
        if self._serves.get(number) != name:
            self._serving.clear()
            self._names.clear()
            if name is None:
                del self._serves[number]
            else:
                self._serves[number] = name

    def _file_loras(self, number: int, slot: WorkerSlot) -> None:
        soon = (slot.model.name, slot.loras_soon) if slot.model is not None else ("", _NONE)
        before = self._soon.get(number, ("", _NONE))
        if soon == before:
            return
        self._soon[number] = soon
        for (name, loras), change in ((before, -1), (soon, 1)):
            held = self._held.setdefault(name, Counter())
            for lora in loras:
                held[lora] += change
                if not held[lora]:
                    del held[lora]


_NONE: frozenset[str] = frozenset()


def _groups_of(slot: WorkerSlot, sure_until: float) -> list[Group]:
    """What may be to do about a slot."""
    found: list[Group] = []
    state = slot.state
    if state is State.SERVING:
        if not slot.running:
            found.append("free")
        elif not slot.ahead:
            found.append("short of work")
        if slot.wanted and slot.holds_any:
            found.append("at work")
    elif state is State.DOWN and slot.wanted:
        found.append("down")
    elif state is State.BOOTED:
        found.append("booted")
    elif state is State.LOADING:
        found.append("loading")
    if sure_until == -math.inf:
        found.append("not sure")
    if slot.orders:
        found.append("ordered")
    if slot.drained or slot.comes_back:
        found.append("drained")
    if slot.model is None:
        found.append("without a model")
    if slot.rests:
        found.append("resting")
    return found


def _sure_until(slot: WorkerSlot) -> float:
    """Monotonic time until which a slot's device does not run dry, if it has a worker."""
    if not slot.alive:
        return math.inf
    if slot.state is not State.SERVING or slot.model is None:
        return -math.inf
    return forecast.surely_busy_until(slot, slot.model.times, SURE)
