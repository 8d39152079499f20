"""The scheduler's promises; pure, so simulation can be exhaustive."""

import heapq
import random
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from core.engine.pending import Peer, Pending, Stack, Worker, files_of
from core.engine.scheduler import Scheduler
from core.engine.tail import share_out

ALONE = Worker("w0")


def scheduled(tasks: Iterable[Pending] = (), max_passed_over: int = 32) -> Scheduler:
    """A scheduler with one open job, number 0."""
    scheduler = Scheduler(max_passed_over)
    scheduler.open(0)
    for task in tasks:
        scheduler.add(task)
    return scheduler


def drain(scheduler: Scheduler, worker: Worker = ALONE) -> list[int]:
    taken = []
    while (task := scheduler.take(worker)) is not None:
        taken.append(task.position)
    return taken


def test_longest_expected_work_goes_first() -> None:
    tasks = [Pending(0, i, work) for i, work in enumerate([1.0, 4.0, 2.0, 4.0])]
    assert drain(scheduled(tasks)) == [1, 3, 2, 0]


def test_every_task_is_given_out_exactly_once() -> None:
    rng = random.Random(1)
    stacks = [None, "a", "b", "c", frozenset("ab"), frozenset("bc")]
    tasks = [Pending(0, i, rng.random(), rng.choice(stacks)) for i in range(500)]
    scheduler = scheduled(tasks, max_passed_over=5)
    assert len(scheduler) == 500
    assert sorted(drain(scheduler)) == list(range(500))
    assert len(scheduler) == 0


def test_a_resident_lora_is_used_up_before_another_is_loaded() -> None:
    scheduler = scheduled([Pending(0, i, 1.0, "ab"[i % 2]) for i in range(10)])
    order = drain(scheduler, replace(ALONE, loras=frozenset("b")))
    assert [i % 2 for i in order] == [1] * 5 + [0] * 5


def test_a_lora_that_nobody_holds_is_preferred_to_one_held_elsewhere() -> None:
    scheduler = scheduled([Pending(0, 0, 9.0, "theirs"), Pending(0, 1, 1.0, "free")])
    assert drain(scheduler, replace(ALONE, loras_elsewhere=frozenset({"theirs"}))) == [1, 0]


def test_no_lora_waits_longer_than_its_bound() -> None:
    bound = 7
    tasks = [Pending(0, i, 5.0, "popular") for i in range(100)] + [Pending(0, 100, 1.0, "rare")]
    order = drain(scheduled(tasks, bound), replace(ALONE, loras=frozenset({"popular"})))
    assert order.index(100) == bound


def leases_in_turns(tasks: list[Pending], workers: int, bound: int) -> list[tuple[str, Pending]]:
    """Equally fast workers, each of which keeps one LoRA or stack, with what they got."""
    scheduler, names = scheduled(tasks, bound), [f"w{n}" for n in range(workers)]
    held = dict.fromkeys(names, frozenset[str]())
    given = []
    while scheduler:
        for name in names:
            elsewhere = frozenset[str]().union(*(held[n] for n in names if n != name))
            worker = Worker(name, held[name], frozenset(names) - {name}, elsewhere)
            task = scheduler.take(worker)
            if task is not None:
                given.append((name, task))
                held[name] = files_of(task.lora) or held[name]
    return given


@pytest.mark.parametrize("loras", [8, 64, 200])
def test_many_waiting_loras_cost_hardly_more_than_a_load_each(loras: int) -> None:
    rng = random.Random(loras)
    tasks = [Pending(0, i, 1.0, str(rng.randrange(loras))) for i in range(1000)]
    last: dict[str, Stack] = {}
    loads = 0
    for worker, task in leases_in_turns(tasks, 8, 32):
        loads += last.get(worker) != task.lora
        last[worker] = task.lora
    assert loads <= loras + 16


def test_hundreds_of_workers_do_not_make_each_other_load_loras() -> None:
    draw, workers = random.Random(0), 128
    tasks = [Pending(0, i, 1.0, str(draw.randrange(64))) for i in range(2_500)]
    held: dict[str, Stack] = {}
    loads = 0
    for worker, task in leases_in_turns(tasks, workers, 32):
        loads += held.get(worker) != task.lora
        held[worker] = task.lora
    assert loads <= 3 * workers


def test_a_worker_that_holds_a_part_of_a_stack_loads_only_the_rest() -> None:
    """So it goes on with what it lacks the fewest files of, whatever work waits elsewhere."""
    whole, part, other = frozenset({"a", "b"}), frozenset({"a", "c"}), frozenset({"d", "e"})
    scheduler = scheduled(
        [
            Pending(0, 0, 9.0, other),
            Pending(0, 1, 5.0, part),
            Pending(0, 2, 1.0, whole),
            Pending(0, 3, 1.0, "b"),
        ]
    )
    holder = replace(ALONE, loras=whole)
    assert drain(scheduler, holder) in ([2, 3, 1, 0], [3, 2, 1, 0])
    shares = share_out(
        [[Pending(0, 0, 1.0, part), Pending(0, 1, 1.0, other)]],
        [Peer("w0", 0.0, 1.0, frozenset("d")), Peer("w1", 0.5, 1.0, frozenset("ca"))],
        load_seconds=3.0,
    )
    assert shares == {"w0": {(0, 1)}, "w1": {(0, 0)}}


def test_a_stack_waits_for_no_holder_of_a_mere_part_of_it() -> None:
    scheduler = scheduled(
        [Pending(0, 0, 1.0, frozenset({"fast", "ink"})), Pending(0, 1, 9.0, "theirs")]
    )
    elsewhere = frozenset({"fast", "theirs"})
    assert drain(scheduler, replace(ALONE, loras_elsewhere=elsewhere)) == [0, 1]


@pytest.mark.parametrize("styles", [8, 64])
def test_many_stacks_with_a_file_in_common_cost_hardly_more_than_a_load_of_each_file(
    styles: int,
) -> None:
    rng = random.Random(styles)
    tasks = [
        Pending(0, i, 1.0, frozenset({"fast", f"style {rng.randrange(styles)}"}))
        for i in range(1000)
    ]
    held: dict[str, frozenset[str]] = {}
    loads = 0
    for worker, task in leases_in_turns(tasks, 8, 32):
        loads += len(files_of(task.lora) - held.get(worker, frozenset()))
        held[worker] = files_of(task.lora)
    assert loads <= styles + 16 + 8  # the common file once by each worker


@pytest.mark.parametrize("rare", [1, 30])
def test_with_several_workers_no_lora_waits_longer_than_its_bound(rare: int) -> None:
    bound, workers = 32, 4
    tasks = [Pending(0, i, 5.0, "popular") for i in range(3000)]
    tasks += [Pending(0, 3000 + i, 1.0, f"rare {i}") for i in range(rare)]
    order = [task.position for _, task in leases_in_turns(tasks, workers, bound)]
    waited = max(order.index(3000 + i) for i in range(rare))
    # Until it is due, until a worker has had its share, and behind those that are due with it.
    assert waited <= bound + bound * workers + bound * rare


def test_a_retry_goes_behind_fresh_tasks() -> None:
    scheduler = scheduled([Pending(0, 0, 1.0), Pending(0, 1, 1.0, "lora")])
    scheduler.add(Pending(0, 2, 99.0, retry=1))
    assert drain(scheduler) == [0, 1, 2]


def test_a_retry_waits_for_another_worker_while_there_is_one() -> None:
    scheduler = scheduled([Pending(0, 0, 1.0, retry=1, avoid=frozenset({"w0"}))])
    with_other = replace(ALONE, others=frozenset({"w1"}))
    assert scheduler.take(with_other) is None
    assert scheduler.take(Worker("w1", others=frozenset({"w0"}))) is not None


def test_a_retry_returns_to_its_worker_when_that_is_the_only_one() -> None:
    scheduler = scheduled([Pending(0, 0, 1.0, retry=1, avoid=frozenset({"w0"}))])
    assert scheduler.take(ALONE) is not None


def test_tasks_that_must_wait_for_another_worker_cost_an_idle_one_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = 0
    pop = heapq.heappop

    def counted(heap: list[Any]) -> Any:
        nonlocal moved
        moved += 1
        return pop(heap)

    left = [Pending(0, i, 1.0, retry=1, avoid=frozenset({"w0"})) for i in range(1000)]
    scheduler = scheduled(left)
    w0 = replace(ALONE, others=frozenset({"w1"}))
    monkeypatch.setattr("core.engine.task_queue.heapq.heappop", counted)
    assert scheduler.take(w0) is None and moved == 0
    scheduler.add(Pending(0, 1000, 0.5, retry=1, avoid=frozenset({"w1"})))
    taken = scheduler.take(w0)
    assert taken is not None and taken.position == 1000 and moved == 1
    assert scheduler.take(w0) is None and moved == 1
    assert sorted(drain(scheduler)) == list(range(1000)), "alone it has to run them itself"


def test_tasks_that_wait_for_fresh_ones_cost_a_decision_nothing_and_come_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = 0
    before = Pending.__lt__

    def counted(one: Pending, other: Pending) -> bool:
        nonlocal compared
        compared += 1
        return before(one, other)

    dead = [frozenset({f"w{i}"}) for i in range(300)]  # the worker that each was on
    tried = [Pending(0, i, 1.0, retry=1, avoid=avoid) for i, avoid in enumerate(dead)]
    fresh = [Pending(0, 300 + i, 1.0, group=i % 2) for i in range(100)]
    scheduler = scheduled([*tried, *fresh])
    w0 = replace(ALONE, others=frozenset({"w1"}))
    monkeypatch.setattr(Pending, "__lt__", counted)
    given = []
    for _ in range(49):  # two of a group at once, alternately of one and of the other
        first = scheduler.take(w0)
        assert first is not None
        second = scheduler.take_with(first, w0)
        given += [first.position, second.position if second is not None else None]
    assert given[:4] == [300, 302, 301, 303] and len({*given}) == 98 and None not in given
    assert compared < 98, "none of those that wait is looked at"
    assert drain(scheduler, w0)[2:] == [*range(1, 300)], "all but the one that w0 was on"
    assert drain(scheduler, replace(w0, name="w1")) == [0]


@pytest.mark.parametrize("seed", range(20))
def test_each_take_is_the_best_task_that_the_worker_may_run(seed: int) -> None:
    rng = random.Random(seed)
    names = ["w0", "w1", "w2"]
    waiting = {}
    scheduler = scheduled()
    for position in range(200):
        avoid = frozenset(name for name in names if rng.random() < 0.4)
        task = Pending(0, position, rng.random(), retry=rng.randrange(3), avoid=avoid)
        waiting[position] = task
        scheduler.add(task)
    while waiting:
        here = rng.sample(names, rng.randint(1, 3))
        worker = Worker(here[0], others=frozenset(here[1:]))
        may = [t for t in waiting.values() if here[0] not in t.avoid or not {*here[1:]} - t.avoid]
        taken = scheduler.take(worker)
        assert taken == min(may, key=lambda t: (t.retry, -t.work, t.position), default=None)
        if taken is not None:
            del waiting[taken.position]
        assert len(scheduler) == len(waiting)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_another_thread_may_ask_how_many_are_waiting(eager_threads: None) -> None:
    scheduler = scheduled(Pending(0, i, 1.0, f"{i}") for i in range(20))

    def change() -> None:
        for i in range(2000):
            scheduler.add(Pending(0, 20 + i, 1.0, f"{i % 7} more"))
            scheduler.take(ALONE)

    changing = threading.Thread(target=change)
    changing.start()
    seen = set()
    while changing.is_alive():
        seen.add(len(scheduler))
    changing.join()
    assert seen <= {20, 21} and len(scheduler) == 20


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_mixed_sizes_end_close_to_the_lower_bound(workers: int) -> None:
    rng = random.Random(workers)
    work = [rng.choice([0.25, 1.0, 2.25]) for _ in range(64)]
    scheduler = scheduled([Pending(0, i, w) for i, w in enumerate(work)])
    ends = [0.0] * workers
    while len(scheduler):
        first = ends.index(min(ends))
        task = scheduler.take(Worker(f"w{first}"))
        assert task is not None
        ends[first] += task.work
    assert max(ends) <= 1.05 * max(sum(work) / workers, max(work))


def finish(work: list[float], speeds: list[float], rule_5: bool = True) -> float:
    """The makespan of simulated workers, each of `speeds` seconds per work."""
    scheduler = scheduled([Pending(0, i, w) for i, w in enumerate(work)])
    free = [0.0] * len(speeds)
    now = 0.0
    while len(scheduler):
        for n, speed in enumerate(speeds):
            if free[n] > now:
                continue
            peers = tuple(Peer(f"w{i}", max(0.0, free[i] - now), s) for i, s in enumerate(speeds))
            task = scheduler.take(Worker(f"w{n}", peers=peers if rule_5 else ()))
            if task is not None:
                free[n] = now + task.work * speed
        now = min(f for f in free if f > now)
    return max(free)


def test_a_slow_worker_gets_nothing_that_a_fast_one_would_finish_first() -> None:
    assert finish([1.0, 1.0], [1.0, 5.0]) == 2.0
    assert finish([1.0, 1.0], [1.0, 5.0], rule_5=False) == 5.0


@pytest.mark.parametrize("seed", range(20))
def test_workers_of_mixed_speed_end_close_together(seed: int) -> None:
    rng = random.Random(seed)
    speeds = [rng.choice([1.0, 1.5, 3.0]) for _ in range(6)]
    work = [rng.choice([0.25, 1.0, 2.25]) for _ in range(80)]
    bound = sum(work) / sum(1 / s for s in speeds)
    assert finish(work, speeds) <= 1.08 * bound
    assert finish(work, speeds) <= finish(work, speeds, rule_5=False) * 1.001


def test_a_worker_loads_no_lora_that_its_holder_would_be_done_with_first() -> None:
    tasks = [Pending(0, 0, 1.0, "a"), Pending(0, 1, 1.0, "a")]
    holder = Peer("w0", 0.5, 1.0, frozenset({"a"}))
    free = Peer("w1", 0.0, 1.0, frozenset({"b"}))

    def asks(load_seconds: float) -> Pending | None:
        idle = Worker(
            "w1", free.loras, frozenset({"w0"}), holder.loras, (holder, free), load_seconds
        )
        return scheduled(tasks).take(idle)

    assert asks(load_seconds=2.0) is None
    assert asks(load_seconds=1.0) is not None


def test_of_the_last_tasks_each_worker_loads_as_few_loras_as_it_can() -> None:
    tasks = [Pending(0, n, 1.0, "ab"[n % 2]) for n in range(8)]
    shares = share_out([tasks], [Peer("w0", 0.0, 1.0), Peer("w1", 0.0, 1.0)], load_seconds=3.0)
    assert sorted(shares.values(), key=min) == [
        {(0, n) for n in (0, 2, 4, 6)},
        {(0, n) for n in (1, 3, 5, 7)},
    ]


@pytest.mark.parametrize("seed", range(100))
def test_of_idle_workers_there_is_always_one_that_gets_a_waiting_task(seed: int) -> None:
    """Or the batch would never end."""
    rng = random.Random(seed)
    names = [f"w{n}" for n in range(rng.randint(1, 4))]
    tasks = [
        Pending(
            0,
            position,
            rng.choice([0.5, 1.0, 2.0]),
            rng.choice([None, "a", "b", frozenset("ab")]),
            avoid=frozenset(rng.sample(names, rng.randint(0, len(names)))),
        )
        for position in range(rng.randint(1, 4))
    ]
    peers = tuple(
        Peer(name, 0.0, rng.choice([1.0, 3.0]), frozenset(rng.choice(["", "a", "b", "ab"])))
        for name in names
    )
    taken = [
        scheduled(tasks).take(
            Worker(p.name, p.loras, frozenset(names) - {p.name}, peers=peers, load_seconds=3.0)
        )
        for p in peers
    ]
    assert any(taken)


def test_a_task_that_a_worker_may_not_have_yet_counts_as_no_lease() -> None:
    tasks = [Pending(0, 0, 9.0, "a", suspect=True), Pending(0, 1, 1.0, "b")]
    scheduler = scheduled(tasks, max_passed_over=3)
    for _ in range(9):
        assert scheduler.take(Worker("w0", frozenset({"a"}), has_others=True)) is None
        assert scheduler.take(Worker("w0", frozenset({"a"}), most_work=5.0)) is None
    assert drain(scheduler, Worker("w0", frozenset({"a"}))) == [0, 1]


def test_a_retry_goes_to_another_worker_even_to_a_slow_one() -> None:
    scheduler = scheduled([Pending(0, 0, 1.0, retry=1, avoid=frozenset({"w0"}))])
    peers = (Peer("w0", 0.0, 1.0), Peer("w1", 0.0, 9.0))
    assert scheduler.take(Worker("w0", others=frozenset({"w1"}), peers=peers)) is None
    assert scheduler.take(Worker("w1", others=frozenset({"w0"}), peers=peers)) is not None
