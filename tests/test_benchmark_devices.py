"""Who has the devices when, and that editors' memory is free before judges load."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core import engine_choice
from core.devices.device import Device, choose_devices
from core.devices.gpu import Gpu
from core.engine.backend import WorkerBackend
from core.tasks import ScoreTask
from core.worker_spec import WorkerSpec
from tests.edit_world import made_pair, settings
from tests.inline_backend import InlineBackend
from tests.played_workers import PlayedWorkers

GIB = 1024**3
GPUS = [Gpu(i, f"GPU-{i}", "H", 80 * GIB) for i in range(4)]


def benchmark(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: WorkerBackend | None = None,
    **changes: Any,
) -> EditBenchmark:
    """On four GPUs that exist for NVML alone."""
    monkeypatch.setattr(
        engine_choice,
        "choose_devices",
        lambda number, ids, kind: choose_devices(number, ids, kind, environ={}, probe=lambda: GPUS),
    )
    return EditBenchmark(load_benchmark_settings(settings(**changes)), folder, backend=backend)


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


class Watched(InlineBackend):
    """Notes the roles of the workers that it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.roles: list[str] = []

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        self.roles.append(spec.role)
        super().start(slot, device, spec)


class OneGpu:
    """A benchmark on one GPU, whose memory a test tells.

    Args:
        in_use: bytes in use at each look, the first of which is before the editor starts.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        in_use: Callable[[], int],
        **changes: Any,
    ) -> None:
        monkeypatch.setattr("core.devices.nvml.bytes_in_use", lambda masks: in_use())
        self.backend = Watched()
        self.run = benchmark(folder / "out", monkeypatch, self.backend, device_ids=[0], **changes)
        self.run.prepare(PairSet("made", [made_pair(folder / "0.png", 0)]))

    def statuses(self) -> list[str]:
        """Of the edit and of the score, if there is one."""
        with self.run:
            [result] = self.run.run()
        return [r.status for r in (result.edit, result.score) if r is not None]


def test_judges_wait_until_the_editors_memory_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([2 * GIB, 60 * GIB, 30 * GIB, 2 * GIB])

    def in_use() -> int:
        assert "score" not in world.backend.roles
        return next(readings)

    world = OneGpu(tmp_path, monkeypatch, in_use)
    assert world.statuses() == ["done", "done"]
    assert next(readings, None) is None
    assert world.backend.roles == ["edit", "score"]


def test_memory_that_stays_in_use_is_told_and_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    before = iter([2 * GIB])
    world = OneGpu(tmp_path, monkeypatch, lambda: next(before, 10 * GIB), vram_release_timeout=0.01)
    assert world.statuses() == ["done", "done"]
    logger.remove(sink)
    assert any("8.0 GiB of GPU memory stay in use" in line for line in lines)


def test_nobody_waits_for_memory_in_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def interrupted_at_the_third() -> int:
        """The first is before the editor starts, the second when it has left."""
        nonlocal looks
        looks += 1
        if looks == 3:
            world.run.stop_leasing()
        return 60 * GIB if looks > 1 else 0

    world = OneGpu(tmp_path, monkeypatch, interrupted_at_the_third)
    started = time.monotonic()
    assert world.statuses() == ["done", "interrupted"]
    assert time.monotonic() - started < world.run.settings.vram_release_timeout / 2
    assert world.backend.roles == ["edit"]


@pytest.mark.slow
@pytest.mark.parametrize(("score", "moves"), [(0.25, True), (0.01, False)])
def test_devices_change_sides_as_the_measured_rates_ask(
    tmp_path: Path, score: float, moves: bool
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    # An edit of 64 x 64 pixels takes 0.25 s.
    times = {"seconds_per_megapixel_step": 61.0, "score_seconds": score, "load_seconds": 0.1}
    changes: dict[str, Any] = {"stages": "overlapped", "device": "cpu", "cpu_workers": 4}
    pairs = [made_pair(tmp_path / f"{i}.png", i) for i in range(30)]
    judged = {"model": "simulated", "batch_size": 1}
    values = load_benchmark_settings(settings(**changes, simulated=times, judge=judged))
    # As on devices of their own: here they share cores with whatever else is at work.
    workers = PlayedWorkers(took=lambda lease: score if isinstance(lease.task, ScoreTask) else 0.25)
    with EditBenchmark(values, tmp_path / "out", backend=workers.backend) as run:
        run.prepare(PairSet("made", pairs))
        results = run.run()
    logger.remove(sink)
    assert all(r.score is not None and r.score.success for r in results)
    judges = {slot for slot, role in workers.given if role == "score"}
    assert len(judges) >= 2 if moves else len(judges) == 1
    assert all(len(roles) <= 2 for roles in workers.backend.started.values()), "no swinging"
    splits = [re.findall(r"\d+", line) for line in lines if line.startswith("Split:")]
    assert splits and all(sum(map(int, split)) == 4 for split in splits)
