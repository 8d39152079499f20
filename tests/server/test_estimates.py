"""Forecasts of queues, checked against queues that are played through."""

import random
from collections import Counter

import pytest

from apps.server.estimates import Backlog, Share, TaskSeconds, estimate, retry_after

ONE_SECOND = TaskSeconds()
ONE_SECOND.learn("generate", 1.0)


def tasks(count: int) -> Counter[str]:
    return Counter(generate=count)


def played(jobs: list[tuple[Share, int]], watched: int, workers: int) -> float:
    """When a job ends if tasks of one second are dealt by priority and in turns of owners."""
    left = [count for _, count in jobs]
    served: Counter[Share] = Counter()
    now = 0.0
    while left[watched]:
        for _ in range(workers):
            open_ = [i for i, count in enumerate(left) if count]
            if not open_:
                break
            top = max(jobs[i][0][0] for i in open_)
            first = min(
                (i for i in open_ if jobs[i][0][0] == top), key=lambda i: (served[jobs[i][0]], i)
            )
            served[jobs[first][0]] += 1
            left[first] -= 1
        now += 1.0
    return now


@pytest.mark.parametrize("seed", range(30))
def test_a_forecast_is_near_what_comes(seed: int) -> None:
    draw = random.Random(seed)
    workers = draw.choice([1, 2, 4, 8])
    jobs: list[tuple[Share, int]] = [
        ((draw.choice([0, 0, 5]), draw.choice("abc")), draw.randint(1, 200)) for _ in range(8)
    ]
    backlog = Backlog()
    for number, (share, count) in enumerate(jobs):
        backlog.add(share, number, tasks(count))
    for number, (share, _) in enumerate(jobs):
        before, own = backlog.before(share, number), backlog.of(share, number)
        found = estimate(share, before, own, backlog.shares, ONE_SECOND, workers)
        assert found.ends_in is not None
        # Owners' turns are whole tasks, and the last round of workers may be half empty.
        assert found.ends_in == pytest.approx(played(jobs, number, workers), abs=4)


def test_a_small_job_is_not_behind_a_huge_one_of_somebody_else() -> None:
    waiting = {(0, "huge"): tasks(10_000), (0, "small"): tasks(1)}
    found = estimate((0, "small"), tasks(0), tasks(1), waiting, ONE_SECOND, 1)
    assert found.position == 0
    assert found.ends_in is not None
    assert found.ends_in <= 2


def test_nothing_is_promised_before_a_task_has_shown_its_time() -> None:
    found = estimate((0, "a"), tasks(3), tasks(1), {(0, "a"): tasks(4)}, TaskSeconds(), 2)
    assert (found.position, found.starts_in, found.ends_in) == (3, None, None)


def test_nothing_is_promised_while_no_worker_takes_tasks() -> None:
    found = estimate((0, "a"), tasks(3), tasks(1), {(0, "a"): tasks(4)}, ONE_SECOND, 0)
    assert (found.position, found.starts_in, found.ends_in) == (3, None, None)


def test_one_task_takes_no_less_for_more_workers() -> None:
    found = estimate((0, "a"), tasks(0), tasks(1), {(0, "a"): tasks(1)}, ONE_SECOND, 8)
    assert found.ends_in == 1.0


def test_one_slow_first_task_does_not_spoil_the_forecast() -> None:
    seconds = TaskSeconds()
    for value in (300.0, *[2.0] * 19):
        seconds.learn("edit", value)
    assert seconds.of("edit") == pytest.approx(2.0)
    assert seconds.of("score") == pytest.approx(2.0)


def test_the_backlog_forgets_what_has_ended() -> None:
    backlog = Backlog()
    backlog.add((0, "a"), 1, tasks(2))
    backlog.add((0, "a"), 2, tasks(1))
    assert backlog.before((0, "a"), 2) == tasks(2)
    for _ in range(2):
        backlog.settle((0, "a"), 1, "generate")
    assert backlog.before((0, "a"), 2) == Counter()
    assert backlog.waiting("a") == tasks(1)
    backlog.settle((0, "a"), 2, "generate")
    assert not backlog.shares
    assert backlog.owners == 0


def test_who_has_to_wait_is_told_for_how_long() -> None:
    assert retry_after(10, 2.0, workers=4) == 5
    assert retry_after(10, 2.0, workers=4, owners=2) == 10
    assert retry_after(1, 0.001, workers=8) == 1
