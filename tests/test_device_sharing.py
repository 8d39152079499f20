"""Several GPUs for a worker, and several workers for a GPU."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core import engine_choice
from core.devices.device import Device, choose_devices, memory_in_use
from core.devices.gpu import Gpu
from core.devices.sharing import share_out
from core.devices.worker_specs import spec_for
from core.errors import DeviceError, InputError
from core.events import Event, TaskEnded, WorkerState
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.settings import load_settings
from core.store.provenance import read_provenance
from core.worker_spec import WorkerSpec
from tests.conftest import simulated, wait_until
from tests.edit_world import made_pair, settings
from tests.played_workers import PlayedWorkers

GIB = 1024**3
GPUS = [Gpu(i, f"GPU-{i}", "H", 24 * GIB, free=20 * GIB) for i in range(4)]


def chosen(
    number: int | None = None, ids: list[int] | None = None, kind: Any = "auto"
) -> list[Device]:
    return choose_devices(number, ids, kind, environ={}, probe=lambda: GPUS)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """That exist for NVML alone; simulated workers run on them."""
    monkeypatch.setattr(engine_choice, "choose_devices", chosen)


def test_workers_of_one_gpu_have_names_and_shares_of_their_own() -> None:
    devices = share_out(chosen(2), 1, 2, asked_for=True)
    assert [d.label for d in devices] == ["gpu0a", "gpu1a", "gpu0b", "gpu1b"]
    assert [d.mask for d in devices] == ["GPU-0", "GPU-1"] * 2
    assert {d.memory for d in devices} == {12 * GIB} and {d.free for d in devices} == {10 * GIB}
    specs = [spec_for(d, "generate", model(), load_settings(), threads=1) for d in devices]
    assert {(s.sharers, s.memory_share, s.device_count) for s in specs} == {(2, 10 * GIB, 1)}


def model() -> Any:
    from core.devices.model_choice import ModelChoice

    return ModelChoice("simulated", "simulated", "for a test")


def test_a_worker_of_several_gpus_has_the_memory_of_all_of_them() -> None:
    first, second = share_out(chosen(), 2, 1, asked_for=False)
    assert (first.label, first.mask, first.memory) == ("gpu0+1", "GPU-0,GPU-1", 48 * GIB)
    assert (second.label, second.count, second.free) == ("gpu2+3", 2, 40 * GIB)


def test_a_gpu_that_is_left_over_stays_idle_unless_it_was_asked_for() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    assert [d.label for d in share_out(chosen(), 3, 1, asked_for=False)] == ["gpu0+1+2"]
    logger.remove(sink)
    assert any("gpu3 stays idle, because gpus_per_worker is 3" in line for line in lines)
    with pytest.raises(DeviceError, match="4 GPUs cannot be shared out in groups of 3"):
        share_out(chosen(4), 3, 1, asked_for=True)
    with pytest.raises(DeviceError, match="4 GPUs cannot be shared out in groups of 8"):
        share_out(chosen(), 8, 1, asked_for=False)


def test_slices_of_gpus_are_not_joined() -> None:
    slices = [Device("cuda", i, f"MIG-{i}", 10 * GIB) for i in range(2)]
    with pytest.raises(DeviceError, match="gpu0 is a MIG slice"):
        share_out(slices, 2, 1, asked_for=True)


def test_memory_of_a_shared_gpu_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.devices.nvml.bytes_in_use", lambda masks: len(masks) * GIB)
    shared = share_out(chosen(2), 1, 3, asked_for=True)
    assert memory_in_use(shared) == 2 * GIB


@pytest.mark.parametrize("name", ["gpus_per_worker", "workers_per_gpu"])
def test_cpu_workers_ignore_both_and_say_so(name: str) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    config = simulated(device="cpu", **{name: 2})
    generator = MultiGPUImageGenerator(3, config=config)
    logger.remove(sink)
    assert [d.label for d in generator.devices] == ["cpu0", "cpu1", "cpu2"]
    assert any(f"{name}: 2 is for GPUs" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gpus_per_worker": 2, "workers_per_gpu": 2}, "exclude each other"),
        ({"gpus_per_worker": 2, "memory": "offload"}, "memory: offload is for workers with one"),
        ({"gpus_per_worker": 0}, "gpus_per_worker"),
        ({"workers_per_gpu": 99}, "workers_per_gpu"),
    ],
)
def test_contradictions_are_refused_in_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        load_settings(changes)
    assert "\n" not in str(refused.value) and "found {" not in str(refused.value)


def run(
    folder: Path, config: dict[str, Any], tasks: int, workers: Collection[str] = (), **choice: Any
) -> tuple[Any, list[Event]]:
    """`workers`: that are ready before the first task, and idle while others are late."""
    events: list[Event] = []

    def ready() -> set[str]:
        return {e.worker for e in events if isinstance(e, WorkerState) and e.state == "ready"}

    with MultiGPUImageGenerator(
        **choice, config=simulated(**config), output_dir=folder, listener=events.append
    ) as generator:
        wait_until(lambda: ready() >= {*workers}, "all workers are ready")
        results = generator.generate_batch([{"prompt": f"house {n}"} for n in range(tasks)])
    return results, events


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("changes", "masks"),
    [
        ({"gpus_per_worker": 2}, {"gpu0+1": "GPU-0,GPU-1", "gpu2+3": "GPU-2,GPU-3"}),
        (
            {"workers_per_gpu": 2},
            {f"gpu{i}{letter}": f"GPU-{i}" for i in range(4) for letter in "ab"},
        ),
    ],
)
def test_each_worker_sees_its_gpus_and_events_name_it(
    tmp_path: Path, changes: dict[str, Any], masks: dict[str, str]
) -> None:
    config = {**changes, "simulated": {"seconds_per_megapixel_step": 25.0}}
    results, events = run(tmp_path, config, 24, masks)
    seen = {
        r.worker: read_provenance(Path(str(r.output_path)))["used"]["visible_devices"]
        for r in results
    }
    assert seen == masks
    assert {e.worker for e in events if isinstance(e, WorkerState)} == set(masks)
    assert sum(isinstance(e, TaskEnded) for e in events) == 24


@pytest.mark.usefixtures("four_gpus")
def test_a_worker_that_dies_on_a_shared_gpu_leaves_the_other_alone(tmp_path: Path) -> None:
    events: list[Event] = []
    config = simulated(workers_per_gpu=2, simulated={"seconds_per_megapixel_step": 25.0})
    with MultiGPUImageGenerator(
        gpu_ids=[0], config=config, output_dir=tmp_path, listener=events.append
    ) as generator:
        results = generator.generate_batch(
            [{"prompt": "!crash:1"}, *({"prompt": f"house {n}"} for n in range(8))]
        )
    assert all(r.success for r in results)
    starts = [e.worker for e in events if isinstance(e, WorkerState) and e.state == "starting"]
    assert sorted(starts) in (["gpu0a", "gpu0a", "gpu0b"], ["gpu0a", "gpu0b", "gpu0b"])


@pytest.mark.usefixtures("four_gpus")
def test_what_is_said_of_a_gpu_holds_for_its_workers(tmp_path: Path) -> None:
    times = {"seconds_per_megapixel_step": 25.0, "slowness": {"gpu0": 3.0}}  # 0.1 s, or 0.3
    names = ("gpu0a", "gpu0b", "gpu1a", "gpu1b")
    config = {"workers_per_gpu": 2, "simulated": times}
    results, _ = run(tmp_path, config, 16, names, gpu_ids=[0, 1])
    quickest = {name: min(r.elapsed for r in results if r.worker == name) for name in names}
    assert {name for name, seconds in quickest.items() if seconds >= 0.3} == {"gpu0a", "gpu0b"}


@pytest.mark.usefixtures("four_gpus")
def test_few_tasks_go_to_different_gpus() -> None:
    generator = MultiGPUImageGenerator(config=simulated(workers_per_gpu=2))
    generator.use_at_most(4)
    assert [d.label for d in generator.devices] == ["gpu0a", "gpu1a", "gpu2a", "gpu3a"]


# -- editor and judge ---------------------------------------------------------------------------


def labels(folder: Path, **changes: Any) -> tuple[list[str], list[str]]:
    with EditBenchmark(load_benchmark_settings(settings(**changes)), folder) as benchmark:
        editors, judges = benchmark.devices, benchmark.judge_devices
        return [d.label for d in editors], [d.label for d in judges]


ALL = ["gpu0", "gpu1", "gpu2", "gpu3"]
PAIRS = ["gpu0+1", "gpu2+3"]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("changes", "editors", "judges"),
    [
        ({"editor": {"gpus_per_worker": 2}}, PAIRS, ALL),
        ({"parallel_mode": "model_parallel", "gpus_per_worker": 2}, PAIRS, PAIRS),
        ({"parallel_mode": "model_parallel", "judge": {"gpus_per_worker": 1}}, ["gpu0+1+2+3"], ALL),
        ({"parallel_mode": "single", "editor": {"gpus_per_worker": 2}}, ["gpu0+1"], ["gpu0"]),
        (
            {"device_ids": [1], "judge": {"workers_per_gpu": 2}},
            ["gpu1"],
            ["gpu1a", "gpu1b"],
        ),
    ],
)
def test_editor_and_judge_share_gpus_each_in_their_own_way(
    tmp_path: Path, changes: dict[str, Any], editors: list[str], judges: list[str]
) -> None:
    assert labels(tmp_path, **changes) == (editors, judges)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"stages": "overlapped", "editor": {"gpus_per_worker": 2}},
            "stages: overlapped .* need the same gpus_per_worker",
        ),
        (
            {"parallel_mode": "model_parallel", "judge": {"workers_per_gpu": 2}},
            "judge.workers_per_gpu: 2 needs judge.gpus_per_worker: 1",
        ),
        (
            {"parallel_mode": "single", "editor": {"workers_per_gpu": 2}},
            "editor.workers_per_gpu: 2 excludes parallel_mode: single",
        ),
        (
            {
                "parallel_mode": "model_parallel",
                "gpus_per_worker": 2,
                "editor": {"memory": "nf4"},
            },
            "editor.memory: nf4 is for workers with one GPU",
        ),
    ],
)
def test_what_excludes_itself_in_a_benchmark_is_refused_by_name(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        load_benchmark_settings(settings(**changes))


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("changes", "workers"),
    [
        (
            {
                "stages": "sequential",
                "editor": {"gpus_per_worker": 2},
                "judge": {"workers_per_gpu": 2},
            },
            {*PAIRS, *(f"{gpu}{letter}" for gpu in ALL for letter in "ab")},
        ),
        (
            {
                "stages": "overlapped",
                "device_ids": [0, 1],
                "editor": {"workers_per_gpu": 2},
                "judge": {"workers_per_gpu": 2},
            },
            {"gpu0a", "gpu1a", "gpu0b", "gpu1b"},
        ),
    ],
)
def test_a_benchmark_runs_with_shared_and_joined_gpus(
    tmp_path: Path, changes: dict[str, Any], workers: set[str]
) -> None:
    """And no worker starts on a GPU while a worker of another share of it is there."""
    changes = {**changes, "judge": {"batch_size": 1, **changes["judge"]}}
    times = {"seconds_per_megapixel_step": 20.0, "score_seconds": 0.05}
    pairs = [made_pair(tmp_path / f"{i}.png", i) for i in range(16)]
    values = load_benchmark_settings(settings(**changes, simulated=times))
    played = PlayedWorkers()
    beside: list[tuple[str, str]] = []
    start = played.backend.start

    def watched(slot: str, device: Device, spec: WorkerSpec) -> None:
        for other, others in played.backend.started.items():
            if not others[-1].dead and set(others[-1].device.mask.split(",")) & set(
                device.mask.split(",")
            ):
                beside.append((other, slot))
        start(slot, device, spec)

    played.backend.start = watched  # type: ignore[method-assign]
    with EditBenchmark(values, tmp_path / "out", backend=played.backend) as benchmark:
        benchmark.prepare(PairSet("made", pairs))
        results = benchmark.run()
    assert all(r.score is not None and r.score.success for r in results)
    assert set(played.backend.started) == workers
    assert all(one[:-1] == other[:-1] for one, other in beside), "both share a GPU in the same way"
