"""Who has the devices when, and that editors' memory is free before judges load."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from apps.edit_benchmark import runner
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.device import Device, choose_devices
from core.devices.nvml import Gpu
from tests.edit_world import made_pair, settings

GIB = 1024**3
GPUS = [Gpu(i, f"GPU-{i}", "H", 80 * GIB) for i in range(4)]


def benchmark(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> EditBenchmark:
    """On four GPUs that exist for NVML alone; nothing is started."""
    monkeypatch.setattr(
        runner,
        "choose_devices",
        lambda number, ids, kind: choose_devices(number, ids, kind, environ={}, probe=lambda: GPUS),
    )
    return EditBenchmark(load_benchmark_settings(settings(**changes)), folder)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({}, ["gpu0", "gpu1", "gpu2", "gpu3"]),
        ({"device_ids": [3, 1]}, ["gpu3", "gpu1"]),
        ({"parallel_mode": "single"}, ["gpu0"]),
        ({"parallel_mode": "model_parallel"}, ["gpu0+1+2+3"]),
        ({"parallel_mode": "model_parallel", "gpus_per_worker": 2}, ["gpu0+1", "gpu2+3"]),
        ({"device": "cpu", "cpu_workers": 3}, ["cpu0", "cpu1", "cpu2"]),
    ],
)
def test_the_parallel_mode_decides_who_gets_which_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], labels: list[str]
) -> None:
    with benchmark(tmp_path, monkeypatch, **changes) as run:
        assert [device.label for device in run.devices] == labels


def test_judges_wait_until_the_editors_memory_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readings = iter([60 * GIB, 30 * GIB, 2 * GIB])
    monkeypatch.setattr(runner, "POLL", 0.0)
    monkeypatch.setattr(runner, "memory_in_use", lambda devices: next(readings))
    with benchmark(tmp_path, monkeypatch) as run:
        run.wait_for_memory(run.devices, before=2 * GIB)
    assert next(readings, None) is None


def test_memory_that_stays_in_use_is_told_and_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loguru import logger

    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    monkeypatch.setattr(runner, "POLL", 0.0)
    monkeypatch.setattr(runner, "memory_in_use", lambda devices: 10 * GIB)
    with benchmark(tmp_path, monkeypatch, vram_release_timeout=0.01) as run:
        run.wait_for_memory([Device("cuda", 0, "0")], before=2 * GIB)
    logger.remove(sink)
    assert any("8.0 GiB of GPU memory stay in use" in line for line in lines)


def test_nobody_waits_for_memory_in_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def interrupted_at_the_second(devices: list[Device]) -> int:
        nonlocal looks
        looks += 1
        assert looks <= 2
        if looks == 2:
            run.stop_leasing()
        return 60 * GIB

    monkeypatch.setattr(runner, "memory_in_use", interrupted_at_the_second)
    with benchmark(tmp_path, monkeypatch) as run:
        run.wait_for_memory(run.devices, before=0)
    assert looks == 2


@pytest.mark.parametrize(("score", "moves"), [(0.25, True), (0.01, False)])
def test_devices_change_sides_as_the_measured_rates_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, moves: bool
) -> None:
    from apps.edit_benchmark import overlapped

    splits: list[tuple[int, int]] = []
    original = overlapped._rebalance

    def spy(run: Any, crew: Any) -> None:
        original(run, crew)
        if run.batch("edit").waiting:  # later all but one go over anyway
            splits.append((crew.editors, crew.judges))

    monkeypatch.setattr(overlapped, "_rebalance", spy)
    monkeypatch.setattr(overlapped, "WORTH", 0.0)
    monkeypatch.setattr(overlapped, "PAUSE", 0.0)
    # An edit of 64 x 64 pixels takes 0.25 s.
    times = {"seconds_per_megapixel_step": 61.0, "score_seconds": score}
    changes: dict[str, Any] = {"stages": "overlapped", "device": "cpu", "cpu_workers": 4}
    pairs = [made_pair(tmp_path / f"{i}.png", i) for i in range(30)]
    judged = {"model": "simulated", "batch_size": 1}
    values = settings(**changes, simulated=times, judge=judged)
    with EditBenchmark(load_benchmark_settings(values), tmp_path / "out") as run:
        run.prepare(PairSet("made", pairs))
        results = run.run()
    assert all(r.score is not None and r.score.success for r in results)
    highest = max(judges for _, judges in splits)
    assert highest >= 2 if moves else highest == 1
    changes_of_split = sum(a != b for a, b in pairwise(splits))
    assert changes_of_split <= 4
    assert all(editors + judges == 4 for editors, judges in splits)
