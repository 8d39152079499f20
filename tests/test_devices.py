"""Which devices a run uses, through every kind of inherited mask."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from loguru import logger

from core.devices.device import Device, choose_devices, in_groups
from core.devices.gpu import Gpu, Unlisted
from core.devices.nvml import unlisted_gpus
from core.errors import DeviceError

GPUS = [Gpu(i, f"GPU-{i}{i}{i}{i}aaaa-bbbb", "H", 80 * 1024**3) for i in range(4)]
SLICES = [Gpu(0, f"MIG-{i}-cccc", "H", 10 * 1024**3, mig=True) for i in range(3)]


def masks(devices: list[Device]) -> list[str]:
    return [d.mask for d in devices]


def seen_under(mask: str | None, gpus: Sequence[Gpu] = GPUS) -> list[Device]:
    """All CUDA devices of a process that inherited `mask`."""
    environ = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    try:
        return choose_devices(kind="cuda", environ=environ, probe=lambda: list(gpus))
    except DeviceError as error:
        assert "no CUDA device is visible" in str(error)
        return []


@pytest.mark.parametrize(
    ("inherited", "expected"),
    [
        (None, [gpu.uuid for gpu in GPUS]),
        ("2,3", ["2", "3"]),
        (" 3 , 1 ", ["3", "1"]),
        ("GPU-1111aaaa-bbbb,GPU-3333", ["GPU-1111aaaa-bbbb", "GPU-3333"]),
        ("0,-1,2", ["0"]),  # CUDA stops at the first token that names no device
        ("0,9,1", ["0"]),
        ("1,1", ["1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_an_inherited_mask_is_mapped_through(inherited: str | None, expected: list[str]) -> None:
    assert masks(seen_under(inherited)) == expected


def test_mig_slices_are_devices_of_their_own() -> None:
    assert masks(seen_under(None, SLICES)) == [s.uuid for s in SLICES]
    assert masks(seen_under("MIG-1-cccc", SLICES)) == ["MIG-1-cccc"]


def test_ids_count_what_this_process_may_see() -> None:
    chosen = choose_devices(
        gpu_ids=[1], environ={"CUDA_VISIBLE_DEVICES": "3,2"}, probe=lambda: GPUS
    )
    assert chosen == [Device("cuda", 1, "2", 80 * 1024**3)]
    assert chosen[0].label == "gpu1"


def test_all_visible_gpus_are_the_default() -> None:
    assert len(choose_devices(environ={}, probe=lambda: GPUS)) == 4


def test_without_cuda_cpu_workers_stand_in() -> None:
    assert masks(choose_devices(3, environ={}, probe=list)) == ["0", "1", "2"]
    assert [d.label for d in choose_devices(gpu_ids=[0, 5], environ={}, probe=list)] == [
        "cpu0",
        "cpu5",
    ]
    assert len(choose_devices(environ={}, probe=list)) == 1


def test_cpu_workers_that_were_asked_for_see_no_gpu() -> None:
    assert masks(choose_devices(2, kind="cpu", environ={}, probe=lambda: GPUS)) == ["", ""]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"num_gpus": 5}, "4 are visible"),
        ({"gpu_ids": [0, 4]}, "GPU 4 was asked for"),
        ({"gpu_ids": [1, 1]}, "given twice"),
        ({"gpu_ids": [-1]}, "count from 0"),
        ({"gpu_ids": []}, "empty"),
        ({"num_gpus": 0}, "1 or more"),
        ({"num_gpus": 2, "gpu_ids": [1]}, "2 GPUs were asked for"),
    ],
)
def test_impossible_requests_are_refused(request_: dict[str, object], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        choose_devices(**request_, environ={}, probe=lambda: GPUS)  # type: ignore[arg-type]


def test_cuda_that_was_asked_for_is_never_replaced() -> None:
    with pytest.raises(DeviceError, match="no CUDA device is visible"):
        choose_devices(kind="cuda", environ={}, probe=list)


def test_a_model_may_be_spread_over_groups_of_gpus() -> None:
    first, second = in_groups(seen_under(None), 2)
    uuids = [gpu.uuid for gpu in GPUS]
    assert (first.label, first.mask, first.count) == ("gpu0+1", ",".join(uuids[:2]), 2)
    assert (second.label, second.memory) == ("gpu2+3", 160 * 1024**3)
    assert second.mask == ",".join(uuids[2:])
    with pytest.raises(DeviceError, match="3 GPUs cannot be shared out in groups of 2"):
        in_groups(seen_under("0,1,2"), 2)


def test_cpu_workers_are_never_grouped() -> None:
    devices = choose_devices(num_gpus=3, kind="cpu")
    assert in_groups(devices, 2) == devices


def with_device_files(folder: Path, *names: str) -> Unlisted | None:
    for name in names:
        (folder / name).touch()
    return unlisted_gpus(folder)


def chosen_without_nvml(unlisted: Unlisted | None, mask: str | None = None) -> list[Device]:
    environ = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    return choose_devices(environ=environ, probe=list, probe_unlisted=lambda: unlisted)


@pytest.mark.parametrize(
    ("build", "file", "words"),
    [
        ("2.13.0", "nvidia0", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        ("2.13.0+cu130", "nvidia7", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        ("2.13.0+rocm7.1", "kfd", "AMD GPUs"),
    ],
)
def test_gpus_that_cannot_be_listed_are_refused_and_not_replaced_by_the_cpu(
    build: str, file: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.devices.nvml.version", lambda package: build)
    unlisted = with_device_files(tmp_path, file, "nvidiactl")
    with pytest.raises(DeviceError, match=words) as refused:
        chosen_without_nvml(unlisted)
    assert "set device: cpu" in str(refused.value)
    assert [d.kind for d in chosen_without_nvml(unlisted, mask="")] == ["cpu"]  # hidden on purpose


@pytest.mark.parametrize(
    ("build", "file"), [("2.13.0+cpu", "nvidia0"), ("2.13.0+cpu", "kfd"), ("2.13.0", "kfd")]
)
def test_gpus_that_this_torch_cannot_use_are_named_in_a_warning(
    build: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.devices.nvml.version", lambda package: build)
    told: list[str] = []
    sink = logger.add(lambda line: told.append(str(line)), level="WARNING", format="{message}")
    devices = chosen_without_nvml(with_device_files(tmp_path, file))
    logger.remove(sink)
    assert [d.kind for d in devices] == ["cpu"]
    assert str(tmp_path / file) in "".join(told)


def test_a_machine_without_gpus_runs_on_its_cpu_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.devices.nvml.version", lambda package: "2.13.0")
    assert with_device_files(tmp_path, "nvidiactl", "nvidia-uvm", "null") is None
