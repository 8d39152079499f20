"""What is learned of workers from the tasks that they finish."""

from core.engine.task_times import OWN_ENOUGH, TaskTimes
from core.settings import load_settings


def learned(**seconds: float) -> TaskTimes:
    """Every worker finished enough tasks of one unit in its `seconds`."""
    times = TaskTimes(load_settings().supervision)
    for worker, each in seconds.items():
        for _ in range(OWN_ENOUGH):
            times.learn(worker, 1.0, each)
    return times


def test_a_worker_is_taken_to_be_as_fast_as_the_others_until_it_has_shown_its_own_speed() -> None:
    times = learned(fast=1.0, faster=1.0)
    assert times.seconds_per_work("new") == 1.0
    for _ in range(OWN_ENOUGH):
        assert not times.keeps_up("new", times.fastest(["new", "fast", "faster"]))
        times.learn("new", 1.0, 3.0)
    assert times.seconds_per_work("new") == 3.0


def test_a_slow_worker_does_not_keep_up_and_an_equal_one_does() -> None:
    times = learned(one=1.0, other=1.05, slow=1.5)
    everybody = ("one", "other", "slow")
    fastest = times.fastest(everybody)
    assert [times.keeps_up(name, fastest) for name in everybody] == [True, True, False]
    assert times.keeps_up("slow", times.fastest(["slow"]))  # the others have left


def test_what_a_lora_takes_to_load_is_what_its_task_took_longer() -> None:
    times = learned(w=1.0)
    assert times.load_seconds == 0.0
    for seconds, loads in ((1.5, 1), (2.0, 2), (1.0, 0)):
        times.learn("w", 1.0, seconds, loads)
    assert times.load_seconds == 0.5


def test_a_load_is_told_of_by_the_first_of_those_that_run_together() -> None:
    times = learned(w=1.0)
    times.learn("w", 1.0, 1.5, loads=1, together=8)  # an eighth of the load each
    assert times.load_seconds == 4.0


def allowed(times_of: dict[str, float], may_compile: bool = False, **rules: float | None) -> float:
    """Seconds that a task of 10 units may take on a worker that takes so long for one."""
    known = {
        "task_timeout": None,
        "task_timeout_factor": 5.0,
        "task_timeout_minimum": 1.0,
        "first_task_timeout": 900.0,
    }
    times = TaskTimes(load_settings({"supervision": known | rules}).supervision)
    for worker, seconds in times_of.items():
        times.learn(worker, 1.0, seconds)
    return times.allowed("w", 10.0, may_compile)


def test_a_task_has_a_multiple_of_what_it_should_take_and_a_first_one_the_time_of_first_ones() -> (
    None
):
    assert allowed({}) == 900.0
    assert allowed({"w": 2.0}) == 100.0
    assert allowed({"w": 2.0}, task_timeout_factor=8.0) == 160.0
    assert allowed({"w": 2.0}, task_timeout_minimum=300.0) == 300.0
    assert allowed({"w": 2.0}, may_compile=True) == 900.0
    assert allowed({"w": 2.0}, may_compile=True, first_task_timeout=50.0) == 100.0


def test_a_time_that_is_set_holds_for_every_task() -> None:
    assert allowed({}, task_timeout=7.0) == allowed({"w": 2.0}, task_timeout=7.0) == 7.0
