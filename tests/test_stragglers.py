"""Slow and stuck workers do not hold up the end of a batch. Real processes, simulated devices."""

import time
from pathlib import Path
from typing import Any

import pytest

from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import simulated
from tests.lease_records import lease_records

TASK = {"width": 128, "height": 128, "num_inference_steps": 1}  # 0.05 s at full speed
FAST = {"seconds_per_megapixel_step": 3.0}


def tasks(*prompts: str) -> list[dict[str, Any]]:
    return [{"prompt": p, "output_path": f"{i}.png", **TASK} for i, p in enumerate(prompts)]


def outcomes(folder: Path) -> list[str]:
    """Of all leases that the ledger of a folder has seen."""
    return sorted(lease.outcome for lease in lease_records(folder))


def test_a_stuck_workers_task_is_done_by_another(tmp_path: Path) -> None:
    """Long before its deadline, which is a minute at least."""
    with MultiGPUImageGenerator(
        2, config=simulated(simulated=FAST), output_dir=tmp_path
    ) as generator:
        results = generator.generate_batch(tasks("!stop:1", *"abcdef"))
        assert [r.status for r in results] == ["done"] * 7
        assert results[0].attempts == 2
        # The stuck one is killed at its deadline; until then the other draws alone.
        assert generator.generate_batch(tasks("!stop:1", *"abcdef", "g"))[-1].success
    assert outcomes(tmp_path).count("superseded") == 1
    assert not list(tmp_path.glob(".partial*"))


def test_what_waits_behind_a_stuck_task_is_done_by_another(tmp_path: Path) -> None:
    """Short tasks are given out before their turn; and the last picture may not be saved yet."""
    with MultiGPUImageGenerator(
        2, config=simulated(simulated=FAST), output_dir=tmp_path
    ) as generator:
        prompts = [f"{n}" for n in range(40)]
        prompts[15] = "!stop:1"
        results = generator.generate_batch(tasks(*prompts), timeout=30)
        assert {r.status for r in results} == {"done"}
        twice = [r.attempts for r in results].count(2)
        assert results[15].attempts == 2 and twice in (2, 3)
    assert outcomes(tmp_path) == ["done"] * 40 + ["superseded"] * twice


def test_a_late_result_is_thrown_away(tmp_path: Path) -> None:
    with MultiGPUImageGenerator(
        2, config=simulated(simulated=FAST), output_dir=tmp_path
    ) as generator:
        started = time.monotonic()
        results = generator.generate_batch(tasks("!slow:1", *"abcdefg"))
        assert [r.status for r in results] == ["done"] * 8
        assert [r.attempts for r in results] == [2] + [1] * 7
        files = {p: p.read_bytes() for p in tmp_path.glob("*.png")}
        # Long enough for the slow run (1.5 s) to bring its result.
        while time.monotonic() - started < 2.5:
            assert generator.generate_batch([{"prompt": f"{time.monotonic()}", **TASK}])[0].success
    assert {p: p.read_bytes() for p in files} == files
    assert outcomes(tmp_path).count("superseded") == 1
    assert not list(tmp_path.glob(".partial*"))


def test_copies_can_be_switched_off(tmp_path: Path) -> None:
    once = simulated(simulated=FAST, scheduling={"speculative_copies": False})
    with MultiGPUImageGenerator(2, config=once, output_dir=tmp_path) as generator:
        results = generator.generate_batch(tasks("!slow:1", *"abc"))
    assert [r.attempts for r in results] == [1] * 4


@pytest.mark.parametrize("fault", ["crash", "kill", "error", "nan"])
def test_a_copy_that_fails_leaves_the_first_run_alone(tmp_path: Path, fault: str) -> None:
    config = simulated(simulated=FAST)
    with MultiGPUImageGenerator(2, config=config, output_dir=tmp_path) as generator:
        results = generator.generate_batch(tasks(f"!slow,{fault},{fault}", *"abcdef"))
    assert [r.status for r in results] == ["done"] * 7
    assert results[0].attempts >= 2


def test_a_task_is_copied_once_at_most(tmp_path: Path) -> None:
    """However badly its copy ends: healthy workers are not worn out by it."""
    faults = ",".join(["slow", *["crash"] * 20])
    config = simulated(simulated=FAST)
    with MultiGPUImageGenerator(2, config=config, output_dir=tmp_path) as generator:
        results = generator.generate_batch(tasks(f"!{faults}", *"abcdef"))
    assert [r.status for r in results] == ["done"] * 7
    assert results[0].attempts == 2


def test_several_stuck_workers_are_all_stood_in_for(tmp_path: Path) -> None:
    config = simulated(simulated=FAST)
    with MultiGPUImageGenerator(3, config=config, output_dir=tmp_path) as generator:
        assert all(r.success for r in generator.generate_batch(tasks(*"abcdefghijkl")))
        results = generator.generate_batch(tasks("!stop:1 x", "!stop:1 y", *"mnopqr"))
    assert [r.status for r in results] == ["done"] * 8


def test_one_slow_task_does_not_starve_its_worker(tmp_path: Path) -> None:
    config = simulated(simulated=FAST, scheduling={"speculative_copies": False})
    with MultiGPUImageGenerator(2, config=config, output_dir=tmp_path) as generator:
        first = generator.generate_batch(tasks("!slow", *"abcdefghijklmnopqrstuvwx"))
        slow = first[0].worker
        later = [generator.generate_batch(tasks(f"{n}", f"{n}b")) for n in range(4)]
    workers = {r.worker for batch in later for r in batch}
    assert workers == {"cpu0", "cpu1"}, f"{slow} was slow once"


def test_a_slow_worker_gets_nothing_that_the_fast_one_would_end_sooner(tmp_path: Path) -> None:
    mixed = simulated(simulated={**FAST, "slowness": {"cpu0": 6.0}})
    with MultiGPUImageGenerator(2, config=mixed, output_dir=tmp_path) as generator:
        first = generator.generate_batch(tasks(*(f"{i}" for i in range(24))))
        assert {r.worker for r in first} == {"cpu0", "cpu1"}  # now both speeds are known
        second = generator.generate_batch(tasks("a", "b", "c"))
    assert [r.worker for r in second] == ["cpu1"] * 3
