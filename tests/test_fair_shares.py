"""Many jobs on the same workers: who is served when, as simulated workers see it."""

import gc
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine.pending import Key, Peer, Pending, Stack, Worker, files_of
from core.engine.priority_level import AHEAD
from core.engine.scheduler import Scheduler

seeded = settings(derandomize=True, max_examples=30)
WORK = st.sampled_from([0.5, 1.0, 2.0, 4.0])
STACKS: list[Stack] = [None, "a", "b", "c", frozenset("ab")]
LORA = st.sampled_from(STACKS)
SEED = st.integers(0, 2**32)
COUNTS = range(1, 9)
LONGEST = 4.0


@dataclass(frozen=True)
class Ran:
    """A task that a simulated worker ran, and which files it loaded for it."""

    worker: int
    task: Pending
    start: float
    end: float
    loaded: frozenset[str]


@dataclass
class Workshop:
    """Simulated workers, each of which keeps the LoRA or stack that it used last.

    Attributes:
        speeds: seconds per work of each worker.
        load_seconds: how long each file of a LoRA takes to load.
        forecasts: the scheduler is told when workers should be free.
        arrivals: what is done at which time, by the callers.
    """

    scheduler: Scheduler
    speeds: Sequence[float]
    load_seconds: float = 0.0
    forecasts: bool = False
    arrivals: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def run(self, tasks: int | None = None) -> list[Ran]:
        """Run so many tasks, or all; in the order of their starts."""
        names = [f"w{n}" for n in range(len(self.speeds))]
        free, held = [0.0] * len(names), [frozenset[str]()] * len(names)
        ran: list[Ran] = []
        now = 0.0
        while tasks is None or len(ran) < tasks:
            for arrival in [a for a in self.arrivals if a[0] <= now]:
                self.arrivals.remove(arrival)
                arrival[1]()
            for n, name in enumerate(names):
                if free[n] > now or (tasks is not None and len(ran) == tasks):
                    continue
                others = frozenset(names) - {name}
                elsewhere = frozenset[str]().union(*(h for i, h in enumerate(held) if i != n))
                peers = tuple(
                    Peer(names[i], max(0.0, free[i] - now), speed, held[i])
                    for i, speed in enumerate(self.speeds)
                )
                task = self.scheduler.take(
                    Worker(
                        name,
                        held[n],
                        others,
                        elsewhere,
                        peers if self.forecasts else (),
                        self.load_seconds,
                    )
                )
                if task is None:
                    continue
                loaded = files_of(task.lora) - held[n]
                held[n] = files_of(task.lora) or held[n]
                free[n] = now + len(loaded) * self.load_seconds + task.work * self.speeds[n]
                ran.append(Ran(n, task, now, free[n], loaded))
            coming = [f for f in free if f > now] + [a[0] for a in self.arrivals]
            if not coming:
                break
            now = min(coming)
        return ran


def add(scheduler: Scheduler, job: int, tasks: Sequence[tuple[float, Stack]]) -> None:
    for position, (work, lora) in enumerate(tasks):
        scheduler.add(Pending(job, position, work, lora))


def mixed(seed: int, count: int) -> list[tuple[float, Stack]]:
    rng = random.Random(seed)
    return [(rng.choice([0.5, 1.0, 2.0, LONGEST]), rng.choice(STACKS)) for _ in range(count)]


def served(ran: Sequence[Ran]) -> dict[int, float]:
    """Work by job."""
    work: defaultdict[int, float] = defaultdict(float)
    for run in ran:
        work[run.task.job] += run.task.work
    return work


TASKS = st.lists(st.tuples(WORK, LORA), min_size=1, max_size=5)


@pytest.mark.parametrize("workers", COUNTS)
@seeded
@given(
    seed=SEED,
    small=TASKS,
    at=st.floats(0.1, 5.0),
)
def test_a_small_job_behind_a_huge_one_goes_to_the_next_worker_that_is_free(
    workers: int, seed: int, small: list[tuple[float, Stack]], at: float
) -> None:
    scheduler = Scheduler()
    scheduler.open(0, "one")
    add(scheduler, 0, mixed(seed, 100))
    workshop = Workshop(scheduler, [1.0] * workers, load_seconds=2.0)

    def submit() -> None:
        scheduler.open(1, "other")
        add(scheduler, 1, small)

    workshop.arrivals.append((at, submit))
    ran = workshop.run()
    start = min(run.start for run in ran if run.task.job == 1)
    assert start == min(max(run.end, at) for run in ran if run.start < at <= run.end)


@pytest.mark.parametrize("workers", COUNTS)
def test_five_tasks_start_within_one_task_behind_ten_thousand(workers: int) -> None:
    scheduler = Scheduler()
    scheduler.open(0, "one")
    add(scheduler, 0, [(1.0, None)] * 10_000)
    scheduler.open(1, "other")
    add(scheduler, 1, [(1.0, None)] * 5)
    ran = Workshop(scheduler, [1.0] * workers).run(tasks=20)
    starts = [run.start for run in ran if run.task.job == 1]
    assert len(starts) == 5 and starts[0] <= 1.0
    assert starts[-1] <= -(-9 // workers), "and the others every second turn"


@pytest.mark.parametrize("workers", COUNTS)
@seeded
@given(st.data())
def test_a_small_job_starts_within_one_task_where_the_last_tasks_are_dealt_out(
    workers: int, data: st.DataObject
) -> None:
    """There a worker may be passed over, but only for one that should be done with it first."""
    speeds = data.draw(
        st.lists(st.sampled_from([1.0, 1.5, 4.0]), min_size=workers, max_size=workers)
    )
    big = data.draw(st.lists(st.tuples(WORK, LORA), min_size=workers, max_size=4 * workers))
    small, at = data.draw(TASKS), data.draw(st.floats(0.1, 3.0))
    scheduler = Scheduler()
    scheduler.open(0, "one")
    add(scheduler, 0, big)
    workshop = Workshop(scheduler, speeds, load_seconds=2.0, forecasts=True)

    def submit() -> None:
        scheduler.open(1, "other")
        add(scheduler, 1, small)

    workshop.arrivals.append((at, submit))
    ran = workshop.run()
    assert len(ran) == len(big) + len(small)
    running = [run.end for run in ran if run.start < at <= run.end]
    assert min(run.start for run in ran if run.task.job == 1) <= max([at, *running])


@seeded
@given(
    workers=st.integers(1, 8),
    jobs=st.lists(
        st.tuples(st.integers(-2, 2), st.sampled_from("xyz"), TASKS), min_size=1, max_size=8
    ),
    forecasts=st.booleans(),
)
def test_a_higher_priority_always_comes_first(
    workers: int, jobs: list[tuple[int, str, list[tuple[float, Stack]]]], forecasts: bool
) -> None:
    scheduler = Scheduler()
    for job, (priority, owner, tasks) in enumerate(jobs):
        scheduler.open(job, owner, priority)
        add(scheduler, job, tasks)
    # Equal speeds and no loads: nobody is passed over for a faster worker.
    ran = Workshop(scheduler, [1.0] * workers, forecasts=forecasts).run()
    order = [jobs[run.task.job][0] for run in ran]
    assert order == sorted(order, reverse=True)
    assert len(order) == sum(len(tasks) for _, _, tasks in jobs)


def test_a_higher_priority_that_comes_later_is_next() -> None:
    scheduler = Scheduler()
    scheduler.open(0, "one")
    add(scheduler, 0, [(1.0, "held")] * 9)
    worker = Worker("w0", frozenset({"held"}))
    first = scheduler.take(worker)
    scheduler.open(1, "one", priority=1)
    add(scheduler, 1, [(1.0, "other")])
    taken = [scheduler.take(worker), scheduler.take(worker)]
    assert [task.job for task in (first, *taken) if task] == [0, 1, 0]


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@seeded
@given(seed=SEED, owners=st.integers(2, 4))
def test_owners_get_equal_shares_at_every_moment(workers: int, seed: int, owners: int) -> None:
    scheduler = Scheduler()
    for job in range(owners):
        scheduler.open(job, f"owner {job}")
        add(scheduler, job, mixed(seed + job, 50))
    ran = Workshop(scheduler, [1.0] * workers, load_seconds=1.0).run()
    work: defaultdict[int, float] = defaultdict(float)
    left = Counter(dict.fromkeys(range(owners), 50))
    for run in ran:
        work[run.task.job] += run.task.work
        left[run.task.job] -= 1
        waiting = [job for job in left if left[job]]
        for one, other in combinations(waiting, 2):
            assert abs(work[one] - work[other]) <= AHEAD * LONGEST


@seeded
@given(workers=st.integers(1, 8), seed=SEED, owners=st.integers(2, 4))
def test_nobody_starves(workers: int, seed: int, owners: int) -> None:
    """Others are served a bounded amount of work between two tasks of a waiting owner."""
    scheduler = Scheduler()
    for job in range(owners):
        scheduler.open(job, f"owner {job}")
        add(scheduler, job, mixed(seed + job, 50))
    ran = Workshop(scheduler, [1.0] * workers, load_seconds=1.0).run()
    for job in range(owners):
        waited = 0.0
        for run in ran[: max(i for i, run in enumerate(ran) if run.task.job == job)]:
            waited = 0.0 if run.task.job == job else waited + run.task.work
            assert waited <= 2 * AHEAD * LONGEST * (owners - 1)


def test_many_jobs_give_an_owner_no_larger_share() -> None:
    scheduler = Scheduler()
    for job in range(10):
        scheduler.open(job, "many" if job else "one")
        add(scheduler, job, [(1.0, None)] * 40)
    work = served(Workshop(scheduler, [1.0]).run(tasks=60))
    assert work[0] == 30


def test_time_without_tasks_is_no_credit() -> None:
    scheduler = Scheduler()
    for job, owner in enumerate(["early", "late"]):
        scheduler.open(job, owner)
    add(scheduler, 0, [(1.0, None)] * 300)
    workshop = Workshop(scheduler, [1.0])
    workshop.run(tasks=100)
    add(scheduler, 1, [(1.0, None)] * 100)
    assert served(workshop.run(tasks=40)) == {0: 20, 1: 20}


def test_who_queues_one_task_at_a_time_gets_no_more_than_a_share() -> None:
    scheduler = Scheduler()
    scheduler.open(0, "all at once")
    add(scheduler, 0, [(1.0, None)] * 300)
    scheduler.open(1, "one by one")
    scheduler.add(Pending(1, 0, 1.0))
    work: Counter[int] = Counter()
    for n in range(100):
        task = scheduler.take(Worker("w0"))
        assert task is not None
        work[task.job] += 1
        if task.job == 1:
            scheduler.add(Pending(1, n + 1, 1.0))
    assert abs(work[0] - work[1]) <= 2


def test_an_owner_that_nobody_could_serve_does_not_make_up_for_it() -> None:
    scheduler = Scheduler()
    for job, owner in enumerate(["stuck", "served"]):
        scheduler.open(job, owner)
        for position in range(100):
            avoid = frozenset({"w0"}) if owner == "stuck" else frozenset[str]()
            scheduler.add(Pending(job, position, 1.0, avoid=avoid))
    for _ in range(50):
        task = scheduler.take(Worker("w0", others=frozenset({"w1"})))
        assert task is not None and task.job == 1
    scheduler.open(2, "new")
    for position in range(100):
        scheduler.add(Pending(2, position, 1.0))
    taken = [scheduler.take(Worker("w1")) for _ in range(30)]
    assert max(Counter(task.job for task in taken if task).values()) <= 11


@pytest.mark.parametrize("workers", COUNTS)
@pytest.mark.parametrize("loras", [("a", "b"), ("a", None), (frozenset("xa"), frozenset("xb"))])
def test_two_owners_do_not_take_loras_from_each_other(
    workers: int, loras: tuple[Stack, Stack]
) -> None:
    """A load is paid back by `AHEAD` tasks, beside the first one of each worker."""
    scheduler, tasks = Scheduler(), 200
    for job, lora in enumerate(loras):
        scheduler.open(job, f"owner {job}")
        add(scheduler, job, [(1.0, lora)] * tasks)
    ran = Workshop(scheduler, [1.0] * workers, load_seconds=1.0).run()
    loads = sum(bool(run.loaded) for run in ran)
    assert loads <= 2 * workers + 2 * tasks / AHEAD
    if workers > 1 and workers % 2 == 0:
        assert loads <= 2 * workers, "half of them stay with each owner"


def test_a_worker_stays_with_an_owner_for_so_many_tasks_and_no_more() -> None:
    scheduler = Scheduler()
    for job, lora in enumerate("ab"):
        scheduler.open(job, lora)
        add(scheduler, job, [(1.0, lora)] * 100)
    ran = Workshop(scheduler, [1.0], load_seconds=1.0).run(tasks=100)
    switches = [i for i, run in enumerate(ran) if run.loaded]
    stays = [later - earlier for earlier, later in pairwise(switches[2:])]
    assert stays and min(stays) >= AHEAD and max(stays) <= 2 * AHEAD


GROUPS = st.sampled_from([None, "small", "large"])
Plan = list[tuple[str, int, str, list[tuple[float, Stack, str | None, frozenset[str], int]]]]
PLAN = st.lists(
    st.tuples(
        st.sampled_from(["one", "two", "three"]),  # owner
        st.integers(0, 1),  # priority
        st.sampled_from(["draws", "edits"]),  # model
        st.lists(
            st.tuples(
                WORK, LORA, GROUPS, st.frozensets(st.sampled_from(["w0", "w1"])), st.integers(0, 2)
            ),
            max_size=12,
        ),
    ),
    min_size=1,
    max_size=6,
)


@seeded
@given(plan=PLAN, data=st.data())
def test_each_task_is_given_once_or_dropped_with_its_job(plan: Plan, data: st.DataObject) -> None:
    scheduler = Scheduler(max_passed_over=3)
    waiting: dict[Key, Pending] = {}
    for job, (owner, priority, model, tasks) in enumerate(plan):
        scheduler.open(job, owner, priority, model)
        for position, (work, lora, group, avoid, retry) in enumerate(tasks):
            task = Pending(job, position, work, lora, retry, avoid, group)
            waiting[task.key] = task
            scheduler.add(task)

    def check() -> None:
        assert len(scheduler) == len(waiting)
        for model in ("draws", "edits"):
            assert scheduler.waiting(model) == sum(
                plan[t.job][2] == model for t in waiting.values()
            )

    held = {name: frozenset[str]() for name in ("w0", "w1")}
    names, models = st.sampled_from([*held]), st.sampled_from(["draws", "edits"])
    while waiting:
        check()
        if data.draw(st.integers(0, 9)) == 0:
            gone = data.draw(st.integers(0, len(plan) - 1))
            assert scheduler.drop(gone) == sum(task.job == gone for task in waiting.values())
            waiting = {key: task for key, task in waiting.items() if task.job != gone}
            continue
        name, model = data.draw(names), data.draw(models)
        others = frozenset(held) - {name}
        worker = Worker(name, held[name], others, held[next(iter(others))], model=model)
        first = scheduler.take(worker)
        may = [
            task
            for task in waiting.values()
            if plan[task.job][2] == model and (name not in task.avoid or others <= task.avoid)
        ]
        assert (first is None) == (not may)
        if first is None:
            continue
        best = max(plan[task.job][1] for task in may)
        assert plan[first.job][1] == best and waiting.pop(first.key) == first
        assert plan[first.job][2] == model
        held[name] = files_of(first.lora) or held[name]
        while (beside := scheduler.take_with(first, worker)) is not None:
            assert waiting.pop(beside.key) == beside
            assert (beside.group, beside.lora) == (first.group, first.lora)
            assert plan[beside.job][:3] == plan[first.job][:3], "of one owner, priority and model"
    check()


def test_tasks_that_run_together_count_towards_the_share() -> None:
    scheduler = Scheduler()
    for job in range(2):
        scheduler.open(job, f"owner {job}")
        for position in range(64):
            scheduler.add(Pending(job, position, 1.0, group=None if job else "small"))
    worker, work = Worker("w0"), Counter[int]()
    for _ in range(60):
        first = scheduler.take(worker)
        assert first is not None
        company = [scheduler.take_with(first, worker) for _ in range(3)]
        work[first.job] += 1 + sum(task is not None for task in company)
        assert abs(work[0] - work[1]) <= 4


def test_a_task_that_has_to_wait_for_its_worker_is_not_passed_over_for_another_owners() -> None:
    """Or a suspect would never run: its worker would always have something else."""
    scheduler = Scheduler()
    scheduler.open(0, "one")
    scheduler.add(Pending(0, 0, 1.0, suspect=True))
    busy, idle = Worker("w0", has_others=True), Worker("w0")
    scheduler.open(1, "other", priority=-1)
    add(scheduler, 1, [(1.0, None)] * 3)
    assert [scheduler.take(busy) for _ in range(3)] == [None] * 3
    first = scheduler.take(idle)
    assert first is not None and first.job == 0
    assert scheduler.take(busy) is not None


def test_a_dropped_job_is_forgotten_while_others_go_on() -> None:
    scheduler = Scheduler()
    scheduler.open(0, "one")
    add(scheduler, 0, [(1.0 + n, "a") for n in range(1000)])
    scheduler.open(1, "other")
    add(scheduler, 1, [(1.0, "a")] * 100)
    assert scheduler.drop(0) == 1000 and len(scheduler) == 100
    assert scheduler.drop(0) == 0
    while scheduler:
        task = scheduler.take(Worker("w0"))
        assert task is not None and task.job == 1
    left = [o for o in gc.get_objects() if isinstance(o, Pending) and o.job == 0]
    assert left == []


def test_a_job_is_opened_once_and_takes_tasks_while_it_is_open() -> None:
    scheduler = Scheduler()
    scheduler.open(3)
    with pytest.raises(ValueError, match="job 3 is open already"):
        scheduler.open(3)
    scheduler.drop(3)
    with pytest.raises(KeyError):
        scheduler.add(Pending(3, 0, 1.0))
    scheduler.open(3)
    scheduler.add(Pending(3, 0, 1.0))
    assert len(scheduler) == 1
