"""When a run ends: foretold within a tenth after 20 pictures, on devices that are steady."""

import random
from typing import Any

import pytest

from core.events import ModelFetching, TaskEnded, TaskShape, TaskStarted, WorkerState
from core.status.estimate import Lane, seconds_to_end
from core.status.tracker import RunTracker
from core.tasks import Result
from tests.simulated_runs import Clock, SimulatedDevice, SimulatedRun

ENOUGH = 20  # pictures


def devices(seconds: list[float], **others: Any) -> list[SimulatedDevice]:
    return [SimulatedDevice(f"gpu{n}", each, **others) for n, each in enumerate(seconds)]


def tasks(count: int, sizes: list[float], loras: int = 0, seed: int = 0) -> list[TaskShape]:
    """Tasks as the scheduler gives them out: LoRA by LoRA, of each the longest first."""
    chance = random.Random(seed)
    names = [f"style{n}" for n in range(loras)]
    shapes = [
        TaskShape("generate", chance.choice(sizes), (chance.choice(names),) if names else ())
        for _ in range(count)
    ]
    return sorted(shapes, key=lambda shape: (shape.loras, -shape.work))


def errors(run: SimulatedRun, first: int) -> list[float]:
    """By which part of the whole run its foretold end was wrong, after each result from one on."""
    begin = run.clock.now
    end = run.play()
    found = []
    for at, status in run.statuses[first - 1 : -1]:
        assert status.seconds_left is not None
        found.append(abs(at + status.seconds_left - end) / (end - begin))
    return found


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [40, 100, 400])
def test_like_pictures_on_like_devices(workers: int, count: int) -> None:
    run = SimulatedRun(tasks(count, [8.0]), devices([0.25] * workers, loads_model=20.0))
    assert max(errors(run, ENOUGH)) < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_pictures_of_different_sizes_on_devices_of_different_speeds(seed: int) -> None:
    shapes = tasks(200, [2.0, 8.0, 30.0], seed=seed)
    random.Random(seed).shuffle(shapes)
    run = SimulatedRun(shapes, devices([0.2, 0.2, 0.5, 1.0], loads_model=30.0, warms_up=25.0))
    assert max(errors(run, ENOUGH)) < 0.1


def test_the_longest_first() -> None:
    """Then the speed by count would promise far too late an end, and that by work does not."""
    run = SimulatedRun(tasks(150, [1.0, 4.0, 20.0]), devices([0.3, 0.3]))
    assert max(errors(run, ENOUGH)) < 0.05


def test_loras_that_are_still_to_be_loaded_count() -> None:
    run = SimulatedRun(tasks(200, [8.0], loras=10), devices([0.25], loads_lora=6.0))
    assert max(errors(run, ENOUGH)) < 0.1


def test_devices_that_waver_by_a_tenth() -> None:
    chance = random.Random(1)
    wavers = [chance.uniform(0.9, 1.1) for _ in range(300)]
    run = SimulatedRun(tasks(300, [8.0]), devices([0.25] * 4), wavers.__getitem__)
    assert max(errors(run, ENOUGH)) < 0.1


def test_one_stall_is_no_sign_of_what_is_to_come() -> None:
    """A laptop that slept for a minute after the fifteenth picture."""
    stalls = {15: 30.0}
    run = SimulatedRun(tasks(200, [8.0]), devices([0.25]), lambda place: stalls.get(place, 1.0))
    assert max(errors(run, ENOUGH)) < 0.1


def test_what_is_left_of_the_run_is_told_within_a_tenth_as_well() -> None:
    run = SimulatedRun(tasks(200, [8.0]), devices([0.25, 0.3], loads_model=60.0))
    end = run.play()
    for at, status in run.statuses[ENOUGH:-ENOUGH]:
        assert status.seconds_left == pytest.approx(end - at, rel=0.1)


def test_nobody_knows_before_the_first_picture() -> None:
    run = SimulatedRun(tasks(10, [1.0]), devices([1.0]))
    run.play(lambda ended: ended == 1)
    assert RunTracker(memory=lambda d: None).status().seconds_left in (None, 0.0)
    assert run.statuses[0][1].seconds_left is not None


def test_the_last_pictures_are_laid_out_one_by_one() -> None:
    fast, slow = Lane(rate=1.0), Lane(rate=0.1)
    assert seconds_to_end({10.0: 3}, [fast, slow]) == 30.0, "the slow one would need 100 s for one"
    assert seconds_to_end({10.0: 2}, [fast, Lane(1.0, free_in=4.0)]) == 14.0
    assert seconds_to_end({10.0: 1}, [Lane(1.0, free_in=-7.0)]) == 3.0, "it is at it since 7 s"
    assert seconds_to_end({}, [fast]) == 0.0
    assert seconds_to_end({10.0: 3}, []) is None


def test_ten_thousand_pictures_are_laid_out_as_fast_as_ten() -> None:
    lanes = [Lane(1.0)] * 8
    assert seconds_to_end({1.0: 80_000}, lanes) == pytest.approx(10_000.0)
    mixed: dict[float, int] = {float(n): 100 for n in range(1, 101)}
    assert seconds_to_end(mixed, lanes) == pytest.approx(sum(n * 100 for n in mixed) / 8, rel=0.01)


def test_scores_follow_edits_and_are_waited_for() -> None:
    clock = Clock()
    tracker = RunTracker(memory=lambda d: None, clock=clock, ticks=clock)
    edit, score = TaskShape("edit", 4.0), TaskShape("score", 1.0)
    tracker.begin([edit] * 30)
    tracker.begin([])
    tracker.expect("score", 30)
    tracker.hear(WorkerState("gpu0", "ready", "edit"))
    for n in range(30):
        tracker.hear(TaskStarted(f"e{n}", "gpu0", 1, shape=edit))
        clock.now += 2.0
        tracker.hear(TaskEnded(Result(n, f"e{n}", "done", "", worker="gpu0"), 1, shape=edit))
        tracker.add([score])
        assert tracker.counts() == (n + 1, 60), "the total stays, as the lines of a run show it"
        tracker.expect("score", 29 - n)
        if n == 20:
            assert tracker.status().seconds_left is None, "how long a score takes, nobody knows"
            assert tracker.status().kinds[0].seconds_left == pytest.approx(18.0)
            assert [kind.total for kind in tracker.status().kinds] == [30, 30]
            assert tracker.status().phase == "editing"
    tracker.end()
    tracker.hear(WorkerState("gpu0", "loading the model", "score"))
    tracker.hear(ModelFetching("judge", 1, 2))
    assert tracker.status().phase == "downloading"
    tracker.hear(ModelFetching("judge", 2, 2))
    clock.now += 10.0
    tracker.hear(WorkerState("gpu0", "ready", "score"))
    for n in range(10):
        tracker.hear(TaskStarted(f"s{n}", "gpu0", 2, shape=score))
        clock.now += 3.0
        tracker.hear(TaskEnded(Result(n, f"s{n}", "done", "", worker="gpu0"), 2, shape=score))
    status = tracker.status()
    assert status.phase == "scoring" and status.seconds_left == pytest.approx(60.0)
    assert [(kind.kind, kind.done, kind.total) for kind in status.kinds] == [
        ("edit", 30, 30),
        ("score", 10, 30),
    ]


def test_what_is_drawn_together_counts_as_such() -> None:
    """Four results at once, every four seconds: a picture a second, and not one in four."""
    clock = Clock()
    tracker = RunTracker(memory=lambda d: None, clock=clock, ticks=clock)
    shape = TaskShape()
    tracker.begin([shape] * 40)
    tracker.hear(WorkerState("gpu0", "ready", "generate"))
    for group in range(6):
        names = [f"t{4 * group + n}" for n in range(4)]
        for name in names:
            tracker.hear(TaskStarted(name, "gpu0", 1, shape=shape))
        clock.now += 4.0
        for name in names:
            clock.now += 0.01
            tracker.hear(TaskEnded(Result(0, name, "done", "", worker="gpu0"), 1, shape=shape))
    assert tracker.status().seconds_left == pytest.approx(16.0, rel=0.1)
    assert tracker.status().per_minute == pytest.approx(60.0, rel=0.05)
