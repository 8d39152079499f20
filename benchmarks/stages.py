"""When edits and their scores are done, by who has which model when: `python -m benchmarks.stages`.

Devices are simulated by arithmetic: there are no processes, and time is a number. The policy is the
engine's own, and it is asked as the engine asks it: at the start, and when a slot is free and
has no task to take. It is compared with a barrier between the stages, with every fixed split that
there is, and with itself under the bounds `sequential` and `overlapped`. Tasks take up to 10 % more
or less than usual, at random; which of the contenders is best is known afterwards only.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from itertools import product
from math import inf
from random import Random
from statistics import median

from core.engine.model_state import ModelWork, SlotState
from core.engine.model_switch import Stages, assign_models, is_worth_asking

JITTER = 0.1
GPUS = (1, 2, 4, 8)
EDITS = (10, 40, 500)
LOADS = [(0.0, 0.0), (5.0, 5.0), (20.0, 20.0), (60.0, 60.0), (10.0, 60.0), (60.0, 10.0)]
SECONDS = [(1.0, 1.0), (10.0, 1.0), (1.0, 10.0), (60.0, 2.0), (3.0, 20.0), (20.0, 20.0)]
FACTS = 4  # seconds of a task and of a load, of two models
BOUND = 1.05


@dataclass(frozen=True)
class Scenario:
    """Edits that bring a score each.

    Attributes:
        loads: seconds, of the editor and of the judge.
        seconds: of one edit and of one score.
        known: what loads and tasks take was learned before; else it is learned on the way.
    """

    gpus: int
    edits: int
    loads: tuple[float, float]
    seconds: tuple[float, float]
    known: bool = True

    @property
    def seed(self) -> str:
        return f"{self.gpus} {self.edits} {self.loads} {self.seconds}"


def scenarios() -> Iterator[Scenario]:
    for gpus, edits, loads, seconds in product(GPUS, EDITS, LOADS, SECONDS):
        yield Scenario(gpus, edits, loads, seconds)


@dataclass
class _Slot:
    name: str
    model: str | None = None
    busy: bool = False
    loads: int = 0
    tasks: int = 0
    started: float = 0.0
    worked: float = 0.0


@dataclass
class Devices:
    """Simulated devices that edit and score."""

    scenario: Scenario
    now: float = 0.0
    learned: dict[str, list[float]] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        edits, draw = self.scenario.edits, Random(self.scenario.seed)
        names = ("edit", "score")
        self.takes = {
            name: deque(each * draw.uniform(1 - JITTER, 1 + JITTER) for _ in range(edits))
            for name, each in zip(names, self.scenario.seconds, strict=True)
        }
        self.load = dict(zip(names, self.scenario.loads, strict=True))
        self.usual = dict(zip(names, self.scenario.seconds, strict=True))
        self.waiting = {"edit": edits, "score": 0}
        self.edited = self.scored = 0
        self.slots = [_Slot(f"gpu{i}") for i in range(self.scenario.gpus)]
        self.events: list[tuple[float, int]] = []

    # -- what happens ------------------------------------------------------

    def load_model(self, i: int, model: str) -> None:
        slot = self.slots[i]
        slot.model, slot.tasks, slot.worked = model, 0, 0.0
        slot.loads += 1
        self._work(i, self.load[model])

    def _work(self, i: int, seconds: float) -> None:
        self.slots[i].busy, self.slots[i].started = True, self.now
        heappush(self.events, (self.now + seconds, i))

    def take(self, i: int) -> bool:
        slot = self.slots[i]
        if slot.model is None or not self.waiting[slot.model]:
            return False
        self.waiting[slot.model] -= 1
        slot.tasks = 1
        self._work(i, self.takes[slot.model].popleft())
        return True

    def step(self, at_most: float = inf) -> None:
        """Go on to the next end of a load or of a task, if it comes in so many seconds."""
        if self.events[0][0] > self.now + at_most:
            self.now += at_most
            return
        self.now, i = heappop(self.events)
        slot = self.slots[i]
        assert slot.model is not None
        slot.busy = False
        if slot.tasks:
            slot.tasks = 0
            took = self.now - slot.started
            slot.worked += took
            self.learned.setdefault(slot.model, []).append(took)
            if slot.model == "edit":
                self.edited += 1
                self.waiting["score"] += 1
            else:
                self.scored += 1
        else:
            self.loads[slot.model] = self.now - slot.started

    @property
    def finished(self) -> bool:
        return self.scored == self.scenario.edits

    def has_run_dry(self, i: int) -> bool:
        """Nothing waits for the slot's model, and nothing will."""
        model = self.slots[i].model
        return model is None or (model == "edit") or self.edited == self.scenario.edits

    @property
    def facts(self) -> int:
        """How many of the seconds that a decision needs have been learned."""
        return FACTS if self.scenario.known else len(self.learned) + len(self.loads)

    # -- what the policy is told ------------------------------------------

    def seconds_each(self, model: str) -> float | None:
        if self.scenario.known:
            return self.usual[model]
        learned = self.learned.get(model)
        return median(learned[-64:]) if learned else None

    def load_seconds(self, model: str) -> float | None:
        return self.load[model] if self.scenario.known else self.loads.get(model)

    def works(self) -> list[ModelWork]:
        coming = self.scenario.edits - self.edited
        return [
            ModelWork(
                "edit", self.waiting["edit"], self.seconds_each("edit"), self.load_seconds("edit")
            ),
            ModelWork(
                "score",
                self.waiting["score"],
                self.seconds_each("score"),
                self.load_seconds("score"),
                follows="edit",
                coming=coming,
            ),
        ]

    def states(self) -> list[SlotState]:
        return [
            SlotState(s.name, s.model, self._free_in(s), s.tasks, self.now - s.started, s.worked)
            for s in self.slots
        ]

    def _free_in(self, slot: _Slot) -> float:
        """Expected, by what is known; what is overdue may take as long again as it is overdue."""
        if not slot.busy:
            return 0.0
        assert slot.model is not None
        usual = (self.seconds_each if slot.tasks else self.load_seconds)(slot.model)
        passed = self.now - slot.started
        left = (10.0 if usual is None else usual) - passed
        return max(left, -left, 0.001)


def by_policy(devices: Devices, stages: Stages) -> None:
    """Ask the policy as the engine does."""
    look_at, known, idle = 0.0, 0, set[int]()
    while not devices.finished:
        free = {i for i, slot in enumerate(devices.slots) if not slot.busy and not devices.take(i)}
        if any(devices.has_run_dry(i) for i in free - idle) or devices.facts != known:
            look_at = devices.now
        idle, known = free, devices.facts
        put_off = bool(free) and devices.now < look_at
        if free and not put_off:
            works, states = devices.works(), devices.states()
            if is_worth_asking(works, states):
                assigned = assign_models(works, states, stages)
                look_at = devices.now + assigned.good_for
                for i in sorted(free):
                    wanted = assigned.models[devices.slots[i].name]
                    if wanted is not None and wanted != devices.slots[i].model:
                        devices.load_model(i, wanted)
                        idle.discard(i)
        wakes = idle and look_at > devices.now and (put_off or devices.facts < FACTS)
        devices.step(look_at - devices.now if wakes else inf)


def by_barrier(devices: Devices) -> None:
    """All edit; when the last edit is done, all score."""
    for i in range(len(devices.slots)):
        devices.load_model(i, "edit")
    while not devices.finished:
        devices.step()
        for i, slot in enumerate(devices.slots):
            all_edited = devices.edited == devices.scenario.edits
            if not slot.busy and not devices.take(i) and slot.model == "edit" and all_edited:
                devices.load_model(i, "score")


def by_split(devices: Devices, judges: int) -> None:
    """So many score from start to end, and the others edit."""
    for i in range(len(devices.slots)):
        devices.load_model(i, "score" if i < judges else "edit")
    while not devices.finished:
        devices.step()
        for i, slot in enumerate(devices.slots):
            if not slot.busy:
                devices.take(i)


@dataclass(frozen=True)
class Ends:
    """Seconds until everything is done; `most_loads` is how often one slot loaded under `auto`."""

    scenario: Scenario
    auto: float
    sequential: float
    overlapped: float
    barrier: float
    split: float
    most_loads: int

    @property
    def ratio(self) -> float:
        return self.auto / min(self.sequential, self.overlapped, self.barrier, self.split)

    @property
    def ratio_to_equals(self) -> float:
        """To those that know no more than `auto`."""
        return self.auto / min(self.sequential, self.overlapped, self.barrier)


def ends(scenario: Scenario) -> Ends:
    """Let all contenders have the same tasks."""

    def end(run: Callable[[Devices], None]) -> Devices:
        devices = Devices(scenario)
        run(devices)
        return devices

    auto = end(partial(by_policy, stages="auto"))
    split = [end(partial(by_split, judges=m)).now for m in range(1, scenario.gpus)]
    return Ends(
        scenario,
        auto.now,
        end(partial(by_policy, stages="sequential")).now,
        end(partial(by_policy, stages="overlapped")).now,
        end(by_barrier).now,
        min(split, default=inf),
        max(slot.loads for slot in auto.slots),
    )


def main() -> None:
    known = [ends(scenario) for scenario in scenarios()]
    cold = [ends(replace(scenario, known=False)) for scenario in scenarios()]
    print(f"\n{len(known)} scenarios; end of `auto` over the earliest end of all others\n")
    columns = ["all", *(f"{a:g} and {b:g}" for a, b in LOADS)]
    print("| GPUs | " + " | ".join(f"loads {c} s" if c != "all" else c for c in columns) + " |")
    print("| --- " * (len(columns) + 1) + "|")
    for gpus in GPUS:
        mine = [e for e in known if e.scenario.gpus == gpus]
        parts = [mine, *([e for e in mine if e.scenario.loads == loads] for loads in LOADS)]
        print(f"| {gpus} | " + " | ".join(_shown([e.ratio for e in part]) for part in parts) + " |")
    print(
        f"\nearliest of all others over `auto`, where it is ahead: "
        f"{max(1 / e.ratio for e in known):.3f} at most, 1.02 or more in "
        f"{sum(e.ratio < 1 / 1.02 for e in known)}; no slot loaded more than "
        f"{max(e.most_loads for e in known)} times"
    )
    print("\nnothing known at the start\n\n| over the earliest of | worst (median) | above 1.05 |")
    print("| --- | --- | --- |")
    for name, ratios in (
        ("barrier, sequential, overlapped", [e.ratio_to_equals for e in cold]),
        ("and the best split, chosen afterwards", [e.ratio for e in cold]),
    ):
        print(f"| {name} | {_shown(ratios)} | {sum(r > BOUND for r in ratios)} of {len(ratios)} |")
    late = [e for e in known if e.ratio > BOUND]
    for e in late:
        print(f"above the bound: {e}")
    sys.exit(bool(late))


def _shown(ratios: list[float]) -> str:
    return f"{max(ratios):.3f} ({median(ratios):.3f})"


if __name__ == "__main__":
    main()
