"""Models follow the queue: who has which model, on devices simulated by arithmetic."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from random import Random

import pytest

from benchmarks.stages import BOUND, Devices, Scenario, by_policy, ends, scenarios
from core.engine.model_state import ModelWork, SlotState
from core.engine.model_switch import REPAYS, Assignment, Stages, assign_models, is_worth_asking

ALL = list(scenarios())
SMALL = [scenario for scenario in ALL if scenario.edits < 500]


def some(count: int, seed: int) -> list[Scenario]:
    return Random(seed).sample(SMALL, count)


class Watched(Devices):
    """Devices that say so before a slot loads a model."""

    def __init__(self, scenario: Scenario, look: Callable[["Watched", int, str], None]) -> None:
        super().__init__(scenario)
        self.look = look

    def load_model(self, i: int, model: str) -> None:
        self.look(self, i, model)
        super().load_model(i, model)


@pytest.mark.parametrize("scenario", some(16, seed=1), ids=str)
def test_auto_ends_about_as_early_as_the_best_of_barrier_and_splits(scenario: Scenario) -> None:
    assert ends(scenario).ratio <= BOUND


@pytest.mark.parametrize("scenario", some(8, seed=2), ids=str)
def test_rates_that_nobody_knows_yet_are_learned_and_everything_is_scored(
    scenario: Scenario,
) -> None:
    devices = Devices(replace(scenario, known=False))
    by_policy(devices, "auto")
    assert devices.scored == scenario.edits
    barrier = ends(scenario).barrier
    assert devices.now <= 1.5 * barrier


@pytest.mark.parametrize("stages", ["auto", "overlapped", "sequential"])
def test_a_slot_seldom_loads_more_than_each_model_once(stages: Stages) -> None:
    for scenario in some(30, seed=3):
        if scenario.loads[0] == 0:
            continue  # where a load costs nothing, many cost nothing
        devices = Devices(scenario)
        by_policy(devices, stages)
        assert max(slot.loads for slot in devices.slots) <= 3
        assert sum(slot.loads for slot in devices.slots) <= 2 * scenario.gpus + 1


def test_sequential_scores_nothing_before_the_last_edit_is_done() -> None:
    def look(devices: Watched, i: int, model: str) -> None:
        assert model == "edit" or devices.edited == devices.scenario.edits

    for scenario in some(10, seed=4):
        by_policy(Watched(scenario, look), "sequential")
        by_policy(Watched(replace(scenario, known=False), look), "sequential")


def test_overlapped_keeps_a_slot_of_each_model_while_both_have_work() -> None:
    def look(devices: Watched, i: int, model: str) -> None:
        have = [slot.model for slot in devices.slots]
        if None in have:
            return  # at the start
        have[i] = model
        assert "score" in have
        assert "edit" in have or devices.edited == devices.scenario.edits

    for scenario in some(10, seed=5):
        if scenario.gpus > 1:
            by_policy(Watched(scenario, look), "overlapped")
            by_policy(Watched(replace(scenario, known=False), look), "overlapped")


@pytest.mark.parametrize("stages", ["auto", "overlapped", "sequential"])
@pytest.mark.parametrize("known", [True, False])
def test_one_slot_edits_everything_and_then_scores_everything(stages: Stages, known: bool) -> None:
    devices = Devices(Scenario(1, 40, (20.0, 20.0), (3.0, 3.0), known))
    by_policy(devices, stages)
    assert devices.slots[0].loads == 2


# -- any models ------------------------------------------------------------


def chosen(works: list[ModelWork], *slots: SlotState, stages: Stages = "auto") -> list[str | None]:
    return list(assign_models(works, slots, stages).models.values())


def of(name: str, waiting: int = 100, owed: int = 0, **more: object) -> ModelWork:
    """Work of 1 s a task for a model that loads in 10 s."""
    return replace(ModelWork(name, waiting, 1.0, 10.0, owed=owed), **more)  # type: ignore[arg-type]


def empty(count: int) -> list[SlotState]:
    return [SlotState(f"gpu{i}") for i in range(count)]


def test_slots_are_shared_out_by_work_at_the_start() -> None:
    works = [of("generate", 200), of("edit", 100), of("score", 100)]
    models = chosen(works, *empty(4))
    assert [models.count(w.name) for w in works] == [2, 1, 1]


@pytest.mark.parametrize(
    ("edit_seconds", "score_seconds", "judges"),
    [(10.0, 10.0, 4), (30.0, 10.0, 2), (1000.0, 1.0, 1)],
)
@pytest.mark.parametrize("stages", ["auto", "overlapped"])
def test_where_no_switch_pays_both_kinds_of_work_end_together(
    stages: Stages, edit_seconds: float, score_seconds: float, judges: int
) -> None:
    works = [
        of("edit", seconds_each=edit_seconds, load_seconds=1e5),
        of("score", seconds_each=score_seconds, load_seconds=1e5),
    ]
    models = chosen(works, *empty(8), stages=stages)
    assert models.count("score") == judges and models.count("edit") == 8 - judges


@pytest.mark.parametrize("judges", [4, 5])
@pytest.mark.parametrize("stages", ["auto", "overlapped"])
def test_slots_do_not_swing_between_two_splits_that_are_as_good(
    stages: Stages, judges: int
) -> None:
    works = [of("edit", seconds_each=10.0), of("score", seconds_each=12.0)]  # 4.36 would be ideal
    slots = [SlotState(f"{i}", "score" if i < judges else "edit") for i in range(8)]
    assert chosen(works, *slots, stages=stages).count("score") == judges


def test_no_slot_loads_a_model_for_which_there_is_no_task() -> None:
    assert chosen([of("edit", 2), of("score", 0)], *empty(3)).count("edit") == 2
    assert chosen([of("edit", 0)], *empty(2)) == [None, None]


def test_a_slot_that_works_or_loads_keeps_its_model() -> None:
    works = [of("edit", 0), of("score", 1000, owed=2)]
    slots = [SlotState("a", "edit", 0.5, tasks=1), SlotState("b", "edit", 5.0)]
    assert chosen(works, *slots) == ["edit", "edit"]


def test_a_slot_without_work_joins_a_model_if_that_repays_the_load() -> None:
    judge = SlotState("judge", "score", 1.0, tasks=1)
    for waiting, expected in ((1000, "score"), (5, "edit")):
        works = [of("edit", 0), of("score", waiting)]
        assert chosen(works, SlotState("editor", "edit"), judge)[0] == expected


def test_a_slot_with_nothing_left_joins_a_model_of_which_nobody_knows_how_long_it_takes() -> None:
    judge = SlotState("judge", "score", 5.0)
    for seconds, expected in ((None, "score"), (0.1, "edit")):
        works = [of("edit", 0), of("score", 20, seconds_each=seconds)]
        assert chosen(works, SlotState("editor", "edit"), judge)[0] == expected


def test_a_slot_with_work_is_not_taken_by_a_model_that_others_serve() -> None:
    works = [of("edit", 10), of("score", 1000)]
    assert chosen(works, SlotState("a", "edit"), SlotState("b", "score", 1.0, 1))[0] == "edit"


def test_a_slot_is_never_given_a_model_that_it_cannot_serve() -> None:
    works = [of("edit", 1000), of("score", 10)]
    small = SlotState("small", unfit=frozenset({"edit"}))
    assert chosen(works, small, *empty(1)) == ["score", "edit"]
    assert chosen([of("edit", 1000)], small) == [None]
    dry = replace(small, model="score")
    assert chosen([of("edit", 1000), of("score", 0)], dry) == ["score"]


def test_work_that_no_slot_can_serve_keeps_nobody_from_the_rest() -> None:
    works = [of("edit", 10), of("score", 10), of("huge", 10)]
    slot = SlotState("a", "edit", unfit=frozenset({"huge"}))
    assert chosen([of("edit", 0), *works[1:]], slot) == ["score"]


def test_idle_slots_of_equal_kind_do_not_wait_for_each_other() -> None:
    works = [of("edit", 0), of("score", 400)]
    assert chosen(works, *(SlotState(str(i), "edit") for i in range(4))) == ["score"] * 4


def test_a_question_is_spared_where_nothing_can_change() -> None:
    busy, dry = SlotState("a", "edit", 1.0, 1), SlotState("b", "edit")
    assert not is_worth_asking([of("edit", 0), of("score", 9)], [busy])
    assert not is_worth_asking([of("edit", 0), of("score", 0)], [dry])
    assert not is_worth_asking([of("edit", 5), of("score", 9)], [dry, SlotState("c", "score")])
    assert is_worth_asking([of("edit", 5), of("score", 9)], [dry])
    assert is_worth_asking([of("edit", 0), of("score", 9)], [dry])


# -- between owners --------------------------------------------------------


def test_a_model_that_is_owed_a_slot_gets_it_once_the_last_load_has_repaid() -> None:
    works = [of("generate", 10_000, owed=1), of("edit", 5, owed=1)]
    fresh = SlotState("gpu0", "generate", worked=REPAYS * 20.0 - 1)
    assert chosen(works, fresh) == ["generate"]
    assert chosen(works, replace(fresh, worked=REPAYS * 20.0)) == ["edit"]


def test_of_many_slots_no_more_are_taken_than_are_owed_and_have_tasks() -> None:
    slots = [SlotState(f"gpu{i}", "generate") for i in range(8)]
    for waiting, taken in ((1000, 4), (3, 3)):
        works = [of("generate", 10_000, owed=4), of("edit", waiting, owed=4)]
        assert chosen(works, *slots).count("edit") == taken


def test_a_start_gives_every_model_what_it_is_owed() -> None:
    works = [of("generate", 10_000, owed=2), of("edit", 10, owed=2)]
    assert chosen(works, *empty(4)).count("edit") == 2


@dataclass
class Machine:
    """Slots that serve models which have nothing to do with each other, for so many seconds."""

    loads: dict[str, float]
    each: dict[str, float]
    slots: int
    waiting: dict[str, int]

    def run(self, seconds: float) -> "Machine":
        names = list(self.loads)
        self.served = dict.fromkeys(names, 0)
        self.loading, self.longest = 0.0, dict.fromkeys(names, 0.0)
        last = dict.fromkeys(names, 0.0)
        model: list[str | None] = [None] * self.slots
        worked, busy = [0.0] * self.slots, [0.0] * self.slots
        look_at = 0.0
        events = [(0.0, i) for i in range(self.slots)]
        while events and events[0][0] < seconds:
            now, i = heappop(events)
            owed = -(-self.slots // len(names))
            works = [
                ModelWork(
                    n,
                    self.waiting[n],
                    self.each[n],
                    self.loads[n],
                    owed=owed,
                    unserved=now - last[n],
                )
                for n in names
            ]
            states = [
                SlotState(str(k), model[k], max(busy[k] - now, 0.0), 1, worked=worked[k])
                for k in range(self.slots)
            ]
            states[i] = replace(states[i], free_in=0.0, tasks=0)
            wanted = model[i]
            if is_worth_asking(works, states) and (
                now >= look_at or not self.waiting.get(wanted or "")
            ):
                assigned: Assignment = assign_models(works, states)
                wanted, look_at = assigned.models[str(i)], now + assigned.good_for
            if wanted is None:
                continue
            if wanted != model[i]:
                model[i], worked[i] = wanted, 0.0
                busy[i] = now + self.loads[wanted]
                self.loading += self.loads[wanted]
            elif self.waiting[wanted]:
                self.waiting[wanted] -= 1
                self.served[wanted] += 1
                self.longest[wanted] = max(self.longest[wanted], now - last[wanted])
                last[wanted] = now
                worked[i] += self.each[wanted]
                busy[i] = now + self.each[wanted]
            else:
                continue
            heappush(events, (busy[i], i))
        return self


@pytest.mark.parametrize("seed", range(12))
def test_nobody_starves_and_loads_take_a_small_part_of_the_time(seed: int) -> None:
    draw = Random(seed)
    names = ["generate", "edit", "score"][: draw.choice([2, 3])]
    slots = draw.choice([1, 2, 4])
    loads = {name: draw.uniform(1.0, 20.0) for name in names}
    each = {name: draw.uniform(0.5, 5.0) for name in names}
    machine = Machine(loads, each, slots, dict.fromkeys(names, 5000)).run(1500.0)
    turn = sum((2 * REPAYS + 1) * max(loads.values()) + 2 * max(each.values()) for _ in names)
    for name in names:
        assert machine.longest[name] <= turn
    first = slots * max(loads.values())
    assert machine.loading <= slots * 1500.0 / (1 + REPAYS) + first


@pytest.mark.parametrize("seed", range(12))
def test_all_work_of_any_models_gets_done(seed: int) -> None:
    draw = Random(seed)
    names = ["generate", "edit", "score", "caption"][: draw.choice([2, 3, 4])]
    waiting = {name: draw.randint(1, 60) for name in names}
    loads = {name: draw.uniform(0.0, 20.0) for name in names}
    each = {name: draw.uniform(0.5, 5.0) for name in names}
    total = dict(waiting)
    slots = draw.choice([1, 2, 3, 8])
    assert Machine(loads, each, slots, waiting).run(10_000.0).served == total


def test_more_models_than_slots_leave_no_slot_without() -> None:
    works = [of(f"model{k}", 10) for k in range(10)]
    assert None not in chosen(works, *empty(8))


def test_many_tasks_are_shared_out_between_many_slots_by_their_work() -> None:
    works = [of("edit", 2000), of("score", 0, follows="edit", coming=2000)]
    judges = chosen(works, *empty(16), stages="overlapped").count("score")
    assert 4 <= judges <= 12
