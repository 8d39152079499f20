"""Forecasts when work would end if slots changed their models by one rule or another. Pure.

A forecast plays the work through, slot by slot: a slot takes from its model's queue until that is
dry, and what it finishes brings work to the models that follow. Far from both ends of a queue
several tasks are taken at once, so that 10,000 tasks cost little more than 100.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf

SHARES = 4  # parts of a slot's remaining tasks; one part is played at once
LEAST = 1e-6  # of a task that is worth an event
ROUNDING = 0.01  # of a task: less than this is not work that is left


@dataclass(frozen=True)
class Queue:
    """Work for one model, all known or assumed.

    Attributes:
        waiting: tasks that could start now.
        coming: tasks that will follow from unfinished tasks of the model `after`.
        each: seconds a task.
        load: seconds until a slot that changes to this model can work.
        after: index of the model that the coming tasks follow from.
    """

    waiting: float
    coming: float
    each: float
    load: float
    after: int | None = None


@dataclass(frozen=True)
class Place:
    """A slot at the start of a forecast: its model (an index), what it is at, what it may load."""

    model: int | None
    free_in: float
    tasks: float
    fit: frozenset[int]


@dataclass(frozen=True)
class Rule:
    """How slots change their models in a forecast; each does so once at most.

    Attributes:
        worth: a slot without work joins a model whose slots are busy for `worth` times as long as
            the slot needs to load it and to finish a task. Infinite: it joins only a model that
            no slot has.
        barrier: and only once everything that the model's tasks follow from is finished.
        one_each: the last slot of a model stays until all work for that model is finished.
    """

    worth: float = 1.0
    barrier: bool = False
    one_each: bool = False


@dataclass(frozen=True)
class Forecast:
    """When things end by one rule of changing models, in seconds from now.

    Attributes:
        end: when everything is finished; infinite if something never is.
        mean: of all the tasks' ends.
        first: models that slots changed to at once, by index of the slot.
    """

    end: float
    mean: float
    first: dict[int, int]


def forecast(
    queues: Sequence[Queue],
    places: Sequence[Place],
    rule: Rule,
    pinned: int | None = None,
    limit: float = inf,
) -> Forecast:
    """Play the work through.

    Args:
        pinned: a slot that keeps its model, unless another model would be left without any slot.
        limit: a forecast that ends later is given up: it ends never.
    """
    return _Play(queues, places, rule, pinned).run(limit)


class _Play:
    def __init__(
        self, queues: Sequence[Queue], places: Sequence[Place], rule: Rule, pinned: int | None
    ) -> None:
        count = range(len(queues))
        self.queues, self.rule, self.pinned = queues, rule, pinned
        self.waiting = [q.waiting for q in queues]
        self.running = [0.0] * len(queues)
        self.slots = [0] * len(queues)  # that have the model, or are loading it
        self.done = [0.0] * len(queues)
        self.models = [p.model for p in places]
        self.fit = [p.fit for p in places]
        self.hand = [p.tasks for p in places]
        self.early = [False] * len(places)  # all but the last of its tasks have brought theirs
        self.moved = [False] * len(places)
        self.idle: list[list[int]] = [[] for _ in range(len(queues) + 1)]  # the last: no model yet
        self.events: list[tuple[float, int]] = []
        self.end = self.sum = 0.0
        self.first: dict[int, int] = {}
        for i, place in enumerate(places):
            if place.model is not None:
                self.slots[place.model] += 1
                self.running[place.model] += place.tasks
            self.events.append((place.free_in, i))
        heapify(self.events)
        self.coming = [
            q.coming if q.after is not None and self._ahead(q.after) > LEAST else 0.0
            for q in queues
        ]
        self.brings = [  # for each model: who follows, and how many tasks a finished one brings
            [(c, self.coming[c] / self._ahead(k)) for c in count if queues[c].after == k]
            if self._ahead(k) > LEAST
            else []
            for k in count
        ]

    def _ahead(self, k: int) -> float:
        """Tasks of a model that are not finished, as far as they were known at the start."""
        queue = self.queues[k]
        return queue.waiting + queue.coming + self.running[k]

    def unfinished(self, k: int) -> float:
        return self.waiting[k] + self.coming[k] + self.running[k]

    def run(self, limit: float) -> Forecast:
        events, hand, models, nobody = self.events, self.hand, self.models, len(self.queues)
        while events:
            now, i = heappop(events)
            if now > limit:
                return Forecast(inf, inf, self.first)
            model, finished = models[i], hand[i]
            if finished and model is not None:
                hand[i] = 0.0
                self.end = now
                self.sum += finished * now
                self.done[model] += finished
                self.running[model] -= finished
                self._bring(model, min(finished, 1.0) if self.early[i] else finished)
            if not self._take(i, now) and not self._change(i, now):
                self.idle[nobody if model is None else model].append(i)
            if finished:
                self._wake(now)
        done = sum(self.done)
        stuck = any(self.waiting[k] + self.coming[k] > ROUNDING for k in range(nobody))
        return Forecast(inf if stuck else self.end, self.sum / done if done else 0.0, self.first)

    def _bring(self, model: int, finished: float) -> None:
        """Add the tasks that follow from finished ones."""
        for child, each in self.brings[model]:
            new = min(finished * each, self.coming[child])
            self.coming[child] -= new
            self.waiting[child] += new

    def _take(self, i: int, now: float) -> bool:
        """Let a slot begin tasks for its model."""
        model = self.models[i]
        if model is None:
            return False
        waiting = self.waiting[model]
        if waiting <= LEAST:
            return False
        tasks, slots, done = 1.0, self.slots[model], self.done[model]
        if waiting < 1.0:
            tasks = waiting
        elif waiting > slots and done > SHARES * slots:
            left = waiting + self.coming[model]
            tasks = max(
                1.0, min(waiting // slots, left // (SHARES * slots), done // (SHARES * slots))
            )
        self.waiting[model] = waiting - tasks
        self.running[model] += tasks
        self.hand[i] = tasks
        self.early[i] = tasks > 1.0 and bool(self.brings[model])
        if self.early[i]:
            self._bring(model, tasks - 1.0)
            self._wake(now)
        heappush(self.events, (now + tasks * self.queues[model].each, i))
        return True

    def _change(self, i: int, now: float) -> bool:
        """Let a slot without work load another model, if the rule says so."""
        if self.moved[i]:
            return False
        old, rule = self.models[i], self.rule
        if (
            rule.one_each
            and old is not None
            and self.slots[old] < 2
            and self.unfinished(old) > ROUNDING
        ):
            return False
        best, most = None, 0.0
        for k, queue in enumerate(self.queues):
            left = self.waiting[k] + self.coming[k]
            if k == old or left <= ROUNDING or k not in self.fit[i]:
                continue
            after, slots = queue.after, self.slots[k]
            if rule.barrier and after is not None and self.unfinished(after) > ROUNDING:
                continue
            if slots == 0:
                busy = inf
            elif i == self.pinned or slots >= left + self.running[k]:
                continue
            else:
                busy = left * queue.each / slots
                if busy <= rule.worth * (queue.load + queue.each):
                    continue
            if busy > most:
                best, most = k, busy
        if best is None:
            return False
        if now <= 0.0:
            self.first[i] = best
        if old is not None:
            self.slots[old] -= 1
        self.slots[best] += 1
        self.models[i] = best
        self.moved[i] = True
        heappush(self.events, (now + self.queues[best].load, i))
        return True

    def _wake(self, now: float) -> None:
        """Look at the slots without work again, one of each model until one stays as it is."""
        for slots in self.idle:
            while slots and (self._take(slots[-1], now) or self._change(slots[-1], now)):
                slots.pop()
