"""Decides which model each slot should have: models follow the queue. Pure.

To change a slot's model is the dearest thing that a scheduler can ask for: a fresh worker and up
to a minute of loading. So a slot changes when it has nothing left to do and a forecast says that
all work ends sooner for it. Several ways to go on are forecast: to stay, to change now, to change
when enough waits, to wait until the stage before is finished. The earliest end wins. Each way can
be followed to its end, so the outcome is about that of the best of them.

`stages` bounds the policy and adds nothing to it:

- `sequential`: no slot takes a model while work that its tasks follow from is unfinished;
- `overlapped`: every model with work keeps one slot, where there are enough slots;
- `auto`: as the forecasts say.

A forecast asks when everything ends, and not whose work ends first. So it cannot be fair between
owners: what shares and priorities grant a model is the scheduler's matter, handed in as `owed`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Literal

from core.engine.model_forecast import Forecast, Place, Queue, Rule, forecast
from core.engine.model_split import best_split
from core.engine.model_state import SHORTEST, ModelWork, SlotState, times_or_guesses

Stages = Literal["sequential", "overlapped", "auto"]

LOOKS = 0.01  # of the remaining seconds: a slot may stand still for so long unasked,
LOOKS_LOAD = 0.1  # for no more of a load than this,
AT_ONCE, AT_MOST = 0.02, 0.5  # and for no less than the first; where loads are short, the second
REPAYS = 4.0  # times the seconds of loading that a slot works before it may be taken for others
SAME = 1.002  # forecasts this near to each other are equal
GAIN = 1.02  # and a slot that has work is taken from it for no less than this


@dataclass(frozen=True)
class Assignment:
    """Which model each slot should have.

    Attributes:
        models: by slot; None: none, as there is nothing for it to do.
        good_for: seconds in which slots that stay idle need not be asked about again.
    """

    models: Mapping[str, str | None]
    good_for: float


def assign_models(
    works: Sequence[ModelWork], slots: Sequence[SlotState], stages: Stages = "auto"
) -> Assignment:
    """Decide which model each slot should have; only slots that do nothing get another one.

    Args:
        works: of every model that has tasks, or that a slot has.
    """
    decision = _Decision(works, slots, stages)
    decision.assign_empty_slots()
    for i, slot in enumerate(slots):
        if slot.free_in <= 0 and decision.is_free(i):
            decision.decide(i)
    return Assignment(decision.models(), decision.good_for())


def is_worth_asking(works: Iterable[ModelWork], slots: Iterable[SlotState]) -> bool:
    """Look without forecasts whether `assign_models` might change something now."""
    works, slots = list(works), list(slots)
    have = Counter(slot.model for slot in slots)
    waiting = {work.name for work in works if work.waiting}
    left = {work.name for work in works if work.waiting + work.coming}
    wanting = {w.name for w in works if w.waiting and have[w.name] < max(w.owed, 1)}
    return any(
        (wanting if slot.model in waiting else left) - {slot.model} - slot.unfit
        for slot in slots
        if slot.free_in <= 0
    )


class _Decision:
    """The state while slot after slot is decided: those before count as changed."""

    def __init__(
        self, works: Sequence[ModelWork], slots: Sequence[SlotState], stages: Stages
    ) -> None:
        self.works, self.slots = works, slots
        self.index = {work.name: k for k, work in enumerate(works)}
        each, load = times_or_guesses(works, slots)
        self.fit = [
            frozenset(k for k, work in enumerate(works) if work.name not in slot.unfit)
            for slot in slots
        ]
        served = frozenset().union(*self.fit)
        self.queues = [
            Queue(
                work.waiting if k in served else 0,
                work.coming if k in served else 0,
                each[k],
                load[k],
                None if work.follows is None else self.index.get(work.follows),
            )
            for k, work in enumerate(works)
        ]
        self.places = [
            Place(
                None if slot.model is None else self.index.get(slot.model),
                self.free_in(slot),
                slot.tasks if slot.model in self.index else 0,
                self.fit[i],
            )
            for i, slot in enumerate(slots)
        ]
        self.stages = stages
        self.stayed: set[tuple[int | None, frozenset[int]]] = set()
        self.rules = [Rule(barrier=True), Rule(worth=inf, barrier=True)]
        if stages != "sequential":
            one_each = stages == "overlapped"
            self.rules = [
                Rule(one_each=one_each),
                Rule(worth=inf, one_each=one_each),
                Rule(barrier=True, one_each=one_each),
            ]

    def free_in(self, slot: SlotState) -> float:
        """Seconds until a slot is free: as told, or guessed as everything else is."""
        if slot.free_in <= 0 or slot.model not in self.index:
            return max(slot.free_in, 0.0)
        k = self.index[slot.model]
        work, queue = self.works[k], self.queues[k]
        if work.seconds_each is None and slot.tasks:
            return max(slot.tasks * queue.each - slot.busy_for, SHORTEST)
        if work.load_seconds is None and not slot.tasks:
            return max(queue.load - slot.busy_for, SHORTEST)
        return slot.free_in

    def models(self) -> dict[str, str | None]:
        names = [work.name for work in self.works]
        return {
            slot.name: slot.model if place.model is None else names[place.model]
            for slot, place in zip(self.slots, self.places, strict=True)
        }

    def good_for(self) -> float:
        """A small part of what is left to do, and no more than a small part of a load."""
        work = sum(self.unfinished(k) * queue.each for k, queue in enumerate(self.queues))
        load = min((queue.load for queue in self.queues), default=0.0)
        most = max(LOOKS_LOAD * load, AT_MOST)
        return min(max(LOOKS * work / max(len(self.slots), 1), AT_ONCE), most)

    # -- what is there -----------------------------------------------------

    def is_free(self, i: int) -> bool:
        """Whether a slot has a model and nothing to do, and was not changed with others before."""
        return self.places[i].model is not None and self.places[i].free_in <= 0

    def have(self, k: int) -> int:
        return sum(place.model == k for place in self.places)

    def in_hand(self, k: int) -> float:
        return sum(place.tasks for place in self.places if place.model == k)

    def unfinished(self, k: int) -> float:
        return self.queues[k].waiting + self.queues[k].coming + self.in_hand(k)

    def barred(self, k: int) -> bool:
        """Whether `sequential` keeps slots from a model: the stage before it is unfinished."""
        after = self.queues[k].after
        return self.stages == "sequential" and after is not None and self.unfinished(after) > 0

    def must_stay(self, i: int) -> bool:
        """Whether `overlapped` keeps a slot: it is the last one of a model that has work."""
        model = self.places[i].model
        return (
            self.stages == "overlapped"
            and model is not None
            and len(self.slots) > 1
            and self.have(model) == 1
            and self.unfinished(model) > 0
        )

    # -- decisions ---------------------------------------------------------

    def decide(self, i: int) -> None:
        """Decide for a slot that is free and has a model."""
        if self.must_stay(i):
            return
        old = self.places[i].model
        others = [
            k
            for k, queue in enumerate(self.queues)
            if k != old and k in self.fit[i] and queue.waiting + queue.coming > 0
            if not self.barred(k)
        ]
        wanted = self.owed(i, others)
        if wanted is None:
            wanted = self.unknown(i, others)
        if wanted is not None:
            self.change(i, wanted)
        elif old is None or self.queues[old].waiting == 0:
            if (old, self.fit[i]) not in self.stayed:  # else its equals' answer is its own
                self.change_for_the_best(i, others)
        else:
            bare = [
                k
                for k in others
                if self.queues[k].waiting and self.have(k) == 0 and not self.still_owed(k)
            ]
            if bare and self.stages == "overlapped":
                self.change(i, bare[0])
            else:
                self.change_for_the_best(i, bare, GAIN)

    def change(self, i: int, model: int) -> None:
        self.places[i] = replace(
            self.places[i], model=model, free_in=self.queues[model].load, tasks=0
        )

    def owed(self, i: int, others: Sequence[int]) -> int | None:
        """The model that has the smallest part of what it is owed, if this slot can be spared."""
        old = self.places[i].model
        dry = old is None or self.queues[old].waiting + self.queues[old].coming == 0
        short: dict[int, tuple[float, float]] = {}
        for k in others:
            wanted, have = self.still_owed(k), self.have(k)
            if have >= wanted:
                continue
            if old is not None and not dry:
                loads = self.queues[k].load + self.queues[old].load
                spared = have == 0 or self.have(old) > self.works[old].owed
                if not spared or self.slots[i].worked < REPAYS * loads:
                    continue
            short[k] = (have / wanted, -self.works[k].unserved)
        return min(short, key=short.__getitem__) if short else None

    def unknown(self, i: int, others: Sequence[int]) -> int | None:
        """A model whose tasks may take long, for a slot that will have nothing else to do."""
        old = self.places[i].model
        if old is not None and self.unfinished(old) - self.in_hand(old) > 0:
            return None
        return next(
            (
                k
                for k in others
                if self.works[k].seconds_each is None and self.have(k) < self.unfinished(k)
            ),
            None,
        )

    def still_owed(self, k: int) -> int:
        """Slots that a model is owed and has tasks for."""
        return min(self.works[k].owed, ceil(self.queues[k].waiting + self.in_hand(k)))

    def may_help(self, k: int) -> bool:
        """Whether another slot could finish a task before the model's own slots have taken all."""
        queue, have = self.queues[k], self.have(k)
        if have == 0 or queue.coming > 0:
            return True
        latest = max(p.free_in for p in self.places if p.model == k)
        return latest + queue.waiting * queue.each / have > queue.load

    def change_for_the_best(self, i: int, others: Sequence[int], gain: float = 1.0) -> None:
        """Compare what comes of each change, and of none; do what the best of them does now."""
        others = [k for k in others if self.may_help(k)]
        if not others:
            return
        ways: list[tuple[int | None, Forecast]] = []
        before = self.places[i]
        limit = inf

        def look(rule: Rule, pinned: int | None = None) -> int | None:
            nonlocal limit
            way = forecast(self.queues, self.places, rule, pinned, limit)
            change = way.first.get(i) if self.places[i] is before else self.places[i].model
            if change is None or change in others:
                ways.append((change, way))
                limit = min(limit, way.end * max(gain, SAME))
            return change

        for rule in self.rules:
            at_once = look(rule)
            if at_once is not None:
                look(rule, pinned=i)
            for k in others:
                if k != at_once:
                    self.change(i, k)
                    look(rule)
                    self.places[i] = before
        stay = min((way.end for change, way in ways if change is None), default=inf)
        earliest = min(way.end for _, way in ways)
        if earliest == inf or (gain > 1.0 and earliest * gain > stay):
            return
        change, way = min(
            ((change, way) for change, way in ways if way.end <= earliest * SAME),
            key=lambda found: (found[1].mean, found[0] is not None),
        )
        if change is not None:
            self.change(i, change)
        for slot, model in way.first.items():
            if slot != i:
                self.change(slot, model)
        if change is None and not way.first:
            self.stayed.add((before.model, before.fit))

    def assign_empty_slots(self) -> None:
        """Decide for all slots without a model at once, as at the start."""
        empty = [
            i for i, place in enumerate(self.places) if place.model is None and place.free_in <= 0
        ]
        todo = [k for k in range(len(self.queues)) if not self.barred(k) and self.unfinished(k) > 0]
        one_each = self.stages == "overlapped"
        if empty and todo:
            lowest = [
                max(self.still_owed(k) - self.have(k), int(self.have(k) == 0 and one_each), 0)
                for k in todo
            ]
            if sum(lowest) > len(empty):
                lowest = [0] * len(todo)
            work = [self.unfinished(k) * self.queues[k].each for k in todo]

            def value(split: Sequence[int], limit: float) -> float:
                before = list(self.places)
                self.give(empty, dict(zip(todo, split, strict=True)))
                end = _rank(self.best_way(limit * SAME))
                self.places = before
                return end

            best = best_split(len(empty), lowest, work, value)
            self.give(empty, dict(zip(todo, best, strict=True)))
            for i, model in self.best_way(inf).first.items():
                if i in empty and not self.barred(model):
                    self.change(i, model)

    def give(self, empty: Sequence[int], split: Mapping[int, int]) -> None:
        """Give slots their models, those that can serve few models first."""
        left = {k: min(count, ceil(self.unfinished(k))) for k, count in split.items()}
        for i in sorted(empty, key=lambda i: len(self.fit[i])):
            fitting = [k for k in left if left[k] > 0 and k in self.fit[i]]
            if fitting:
                self.change(i, fitting[0])
                left[fitting[0]] -= 1

    def best_way(self, limit: float) -> Forecast:
        """The earliest end from here; of equal ones, the one that has most early."""
        ways = []
        for rule in self.rules:
            ways.append(forecast(self.queues, self.places, rule, limit=limit))
            limit = min(limit, ways[-1].end * SAME)
        return min(ways, key=_rank)


def _rank(way: Forecast) -> float:
    return way.end + way.mean * (SAME - 1)
