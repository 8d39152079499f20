"""Slow and stuck workers do not hold up the end of a batch. Real processes, simulated devices."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.engine.dispatcher import COPY_LOOKS
from core.engine.task_times import OWN_ENOUGH
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import Result
from tests.both_engines import ON_BOTH
from tests.conftest import (
    HELD,
    PATIENCE,
    Workplace,
    standing_still,
    wait_for_workers,
    wait_until,
)
from tests.lease_records import lease_records

pytestmark = ON_BOTH
TASK = {"width": 128, "height": 128, "num_inference_steps": 1}  # 0.05 s at full speed
FAST = {"seconds_per_megapixel_step": 3.0}


def tasks(*prompts: str) -> list[dict[str, Any]]:
    return [{"prompt": p, "output_path": f"{i}.png", **TASK} for i, p in enumerate(prompts)]


@contextmanager
def workers_of(
    folder: Path, workplace: Workplace, count: int = 2, **changes: Any
) -> Iterator[MultiGPUImageGenerator]:
    """A generator whose workers are all ready: none finds that the others have done everything."""
    config = workplace.simulated(**{"simulated": FAST, **changes})
    with MultiGPUImageGenerator(count, config=config, output_dir=folder) as generator:
        wait_for_workers(generator)
        yield generator


def statuses(results: list[Result]) -> list[str]:
    return [result.status for result in results]


def outcomes(folder: Path, name: str) -> list[str]:
    """Of all leases of a picture that the ledger of a folder has seen."""
    return sorted(lease.outcome for lease in lease_records(folder) if lease.key == name)


def test_a_stuck_workers_task_is_done_by_another(tmp_path: Path, workplace: Workplace) -> None:
    """Long before its deadline, which is a minute at least."""
    with workers_of(tmp_path, workplace) as generator:
        results = generator.generate_batch(tasks("!stop:1", *"abcdef"))
        assert statuses(results) == ["done"] * 7
        assert results[0].attempts == 2
        # The stuck one is killed at its deadline; until then the other draws alone.
        assert generator.generate_batch(tasks("!stop:1", *"abcdef", "g"))[-1].success
    assert outcomes(tmp_path, "0.png") == ["done", "superseded"]
    assert not list(tmp_path.glob(".partial*"))


def test_what_waits_behind_a_stuck_task_is_done_by_another(
    tmp_path: Path, workplace: Workplace
) -> None:
    """Short tasks are given out before their turn; and the last picture may not be saved yet."""
    with workers_of(tmp_path, workplace) as generator:
        prompts = [f"{n}" for n in range(40)]
        prompts[15] = "!stop:1"
        results = generator.generate_batch(tasks(*prompts), timeout=PATIENCE)
        assert statuses(results) == ["done"] * 40
        assert results[15].attempts == 2
    for result in results:
        twice = ["superseded"] * (result.attempts - 1)
        assert outcomes(tmp_path, f"{result.position}.png") == ["done", *twice]


def test_a_late_result_is_thrown_away(tmp_path: Path, workplace: Workplace) -> None:
    """On a busy machine another task may be late, too, and run twice; this one surely does."""
    with workers_of(tmp_path, workplace) as generator:
        results = generator.generate_batch(tasks(HELD, *"abc"))
        assert statuses(results) == ["done"] * 4
        assert results[0].attempts == 2
        files = {p: p.read_bytes() for p in tmp_path.glob("*.png")}
        [stuck] = standing_still(workplace.workers(os.getpid()))
        stuck.resume()
        workers = {worker.name for worker in generator.snapshot().result(PATIENCE).workers}
        [late] = workers - {results[0].worker}

        def is_back() -> bool:
            """The worker whose result came too late has drawn something else since."""
            more = generator.generate_batch([{"prompt": "x", **TASK}, {"prompt": "y", **TASK}])
            assert statuses(more) == ["done"] * 2
            return late in {result.worker for result in more}

        wait_until(is_back, "the end of the run that was held up")
    assert {p: p.read_bytes() for p in files} == files
    assert outcomes(tmp_path, "0.png") == ["done", "superseded"]
    assert not list(tmp_path.glob(".partial*"))


def test_copies_can_be_switched_off(tmp_path: Path, workplace: Workplace) -> None:
    with workers_of(tmp_path, workplace, scheduling={"speculative_copies": False}) as generator:
        results = generator.generate_batch(tasks("!slow:1", *"abc"))
    assert [r.attempts for r in results] == [1] * 4


@pytest.mark.parametrize("fault", ["crash", "kill", "error", "nan"])
def test_a_copy_that_fails_leaves_the_first_run_alone(
    tmp_path: Path, workplace: Workplace, fault: str
) -> None:
    with workers_of(tmp_path, workplace) as generator:
        job = generator.submit(tasks(f"!stop,{fault},{fault}", *"abc"))
        wait_until(lambda: outcomes(tmp_path, "0.png")[-1:] > [""], "the copy's end")
        [first] = standing_still(workplace.workers(os.getpid()))
        first.resume()
        results = job.results(PATIENCE)
    assert statuses(results) == ["done"] * 4
    assert results[0].attempts == 2


def test_a_task_is_copied_once_at_most(tmp_path: Path, workplace: Workplace) -> None:
    """However badly its copy ends: healthy workers are not worn out by it."""
    faults = ",".join(["stop", *["crash"] * 20])
    with workers_of(tmp_path, workplace) as generator:
        job = generator.submit(tasks(f"!{faults}", *"abc"))
        wait_until(lambda: outcomes(tmp_path, "0.png")[-1:] > [""], "the copy's end")
        # The other worker is back, has nothing else to do then, and looks for something.
        assert all(r.success for r in generator.generate_batch([{"prompt": "x", **TASK}]))
        time.sleep(5 * COPY_LOOKS)
        assert outcomes(tmp_path, "0.png") == ["", outcomes(tmp_path, "0.png")[-1]]
        [first] = standing_still(workplace.workers(os.getpid()))
        first.resume()
        results = job.results(PATIENCE)
    assert statuses(results) == ["done"] * 4
    assert results[0].attempts == 2


def test_several_stuck_workers_are_all_stood_in_for(tmp_path: Path, workplace: Workplace) -> None:
    with workers_of(tmp_path, workplace, 3) as generator:
        assert all(r.success for r in generator.generate_batch(tasks(*"abcdefghijkl")))
        results = generator.generate_batch(tasks("!stop:1 x", "!stop:1 y", *"mnopqr"))
    assert statuses(results) == ["done"] * 8


def test_every_idle_worker_looks_for_late_tasks_however_few_may_look_at_once(
    tmp_path: Path, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.engine.dispatcher.MOST_PEERS", 1)
    # The first of each machine: it is asked first, and would not be done sooner.
    times = {**FAST, "slowness": {"cpu0": 12.0}}
    with workers_of(tmp_path, workplace, 4, simulated=times) as generator:
        names = {worker.name for worker in generator.snapshot().result(PATIENCE).workers}
        slow = {worker for worker in names if worker.endswith("cpu0")}
        done: Counter[str] = Counter()
        numbers = iter(range(100_000))

        def is_known() -> bool:
            """How fast each of them is."""
            more = generator.generate_batch(tasks(*(f"{next(numbers)}" for _ in range(60))))
            done.update(str(result.worker) for result in more)
            return all(done[worker] >= OWN_ENOUGH for worker in names)

        wait_until(is_known, "the speeds of all workers")
        [stuck] = generator.generate_batch(tasks("!stop:1"))
    assert stuck.attempts == 2 and stuck.worker in names - slow


def test_one_slow_task_does_not_starve_its_worker(tmp_path: Path, workplace: Workplace) -> None:
    """It has something to do again, soon, whatever else made a worker slow on a busy machine."""
    with workers_of(tmp_path, workplace, scheduling={"speculative_copies": False}) as generator:
        first = generator.generate_batch(tasks("!slow", *"abcdefghijklmnopqrstuvwx"))
        numbers = iter(range(1000))

        def draws_again() -> bool:
            more = generator.generate_batch(tasks(*(f"{next(numbers)}" for _ in range(2))))
            return first[0].worker in {result.worker for result in more}

        wait_until(draws_again, f"a task for {first[0].worker}, which was slow once")


def test_a_slow_worker_gets_nothing_that_the_fast_one_would_end_sooner(
    tmp_path: Path, workplace: Workplace
) -> None:
    times = {**FAST, "slowness": {"cpu0": 20.0}}  # 1 s a task: as no other work makes cpu1
    with workers_of(tmp_path, workplace, simulated=times) as generator:
        first = generator.generate_batch(tasks(*(f"{i}" for i in range(24))))
        [slow, quick] = sorted({str(r.worker) for r in first})  # now both speeds are known
        assert slow.endswith("cpu0")
        second = generator.generate_batch(tasks("a", "b", "c"))
    assert [r.worker for r in second] == [quick] * 3
