"""GPUs that do not answer, or not to every question, beside others that do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml  # type: ignore[import-untyped]
import pytest

from core.devices.device import MAX_CPU_WORKERS, Device, choose_devices, in_groups
from core.devices.model_choice import choose_model
from core.devices.nvml import list_gpus
from core.errors import DeviceError

LOST = pynvml.NVMLError_GpuIsLost()
UNSUPPORTED = pynvml.NVMLError_NotSupported()
WITHHELD = pynvml.NVMLError_NoPermission()
GIB = 1024**3


@dataclass
class Driver:
    """As much of NVML as lists GPUs; `faults` says which question to which GPU fails."""

    count: int = 3
    faults: dict[tuple[str, int], Exception] = field(default_factory=dict)
    mig: set[int] = field(default_factory=set)
    free: list[int] = field(default_factory=lambda: [79 * GIB] * 3)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def ask(name: str, answer: Callable[[int], Any]) -> None:
            def asked(index: int) -> Any:
                if (name, index) in self.faults:
                    raise self.faults[name, index]
                return answer(index)

            monkeypatch.setattr(pynvml, f"nvmlDeviceGet{name}", asked)

        monkeypatch.setattr("core.devices.nvml.version", lambda package: "2.13.0")
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: self.count)
        ask("HandleByIndex", lambda index: index)
        ask("MigMode", lambda index: (int(index in self.mig), 0))
        ask("MaxMigDeviceCount", lambda index: 0)
        ask("UUID", lambda index: f"GPU-{index}")
        ask("Name", lambda index: "H")
        ask("MemoryInfo", lambda index: SimpleNamespace(total=80 * GIB, free=self.free[index]))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    driver.install(monkeypatch)
    return driver


def chosen(mask: str | None = None, **request: Any) -> list[tuple[str, str]]:
    """Labels and masks."""
    environ = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    devices = choose_devices(environ=environ, probe=list_gpus, **request)
    return [(device.label, device.mask) for device in devices]


@pytest.mark.parametrize("question", ["HandleByIndex", "UUID", "Name", "MemoryInfo"])
def test_a_lost_gpu_does_not_hide_the_others(driver: Driver, question: str) -> None:
    driver.faults[question, 1] = LOST
    assert chosen() == [("gpu0", "GPU-0"), ("gpu2", "GPU-2")]
    assert chosen(num_gpus=2) == chosen(gpu_ids=[0, 2]) == chosen()
    with pytest.raises(DeviceError, match=r"3 GPUs .* 2 are visible .*\(GPU 1: GPU is lost\)"):
        chosen(num_gpus=3)
    with pytest.raises(DeviceError, match=r"GPU 1 was asked for, but .*: GPU is lost"):
        chosen(gpu_ids=[0, 1])


def test_a_mask_does_not_count_on_cuda_to_count_a_lost_gpu(driver: Driver) -> None:
    driver.faults["HandleByIndex", 0] = LOST
    assert chosen("0,2") == [("gpu1", "GPU-2")]
    assert chosen("GPU-2,GPU-1") == [("gpu0", "GPU-2"), ("gpu1", "GPU-1")]
    assert chosen("") == chosen("-1") == [("cpu0", "0")]


@pytest.mark.parametrize("mask", [None, "0", "1,0", "GPU-1"])
@pytest.mark.parametrize("kind", ["auto", "cuda"])
def test_the_cpu_does_not_stand_in_for_broken_gpus(
    driver: Driver, mask: str | None, kind: str
) -> None:
    driver.count = 2
    driver.faults = {("HandleByIndex", 0): LOST, ("HandleByIndex", 1): LOST}
    with pytest.raises(DeviceError, match=r"No GPU can be used \(GPU 0: GPU is lost") as caught:
        chosen(mask, kind=kind)
    assert "set device: cpu" in str(caught.value)
    assert chosen(mask, kind="cpu") == [("cpu0", "")]


def test_a_gpu_in_mig_mode_without_instances_is_named(driver: Driver) -> None:
    driver.count, driver.mig = 1, {0}
    with pytest.raises(DeviceError, match="GPU 0: MIG is on, and it has no instance"):
        chosen()


def test_gpus_that_are_withheld_from_this_process_do_not_count(driver: Driver) -> None:
    driver.faults["HandleByIndex", 0] = WITHHELD
    assert chosen() == [("gpu0", "GPU-1"), ("gpu1", "GPU-2")]
    assert chosen("1") == [("gpu0", "1")]
    driver.faults = {("HandleByIndex", index): WITHHELD for index in range(driver.count)}
    assert len(chosen(num_gpus=MAX_CPU_WORKERS)) == MAX_CPU_WORKERS


def test_a_gpu_that_does_not_tell_its_memory_is_used_but_chooses_no_large_model(
    driver: Driver,
) -> None:
    driver.faults["MemoryInfo", 2] = UNSUPPORTED
    devices = choose_devices(environ={}, probe=list_gpus)
    assert [device.memory for device in devices] == [80 * GIB, 80 * GIB, 0]
    model = choose_model("auto", None, "auto", devices)
    assert model.identity.startswith("demo-model")
    assert "does not say whether it has 22 GiB" in model.reason
    assert choose_model("auto", None, "auto", devices[:2]).identity == "Tongyi-MAI/Z-Image-Turbo"
    unknown = Device("cuda", 3, "GPU-3")
    assert in_groups([devices[0], unknown], 2)[0].memory == 0


def test_memory_that_others_use_is_not_there_for_a_large_model(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.devices.automatic_model.host_memory", lambda: 256 * GIB)
    driver.free[1] = 1 * GIB
    devices = choose_devices(environ={}, probe=list_gpus)
    with pytest.raises(DeviceError, match="only 1 of the 80 GiB of gpu1 are free"):
        choose_model("auto", None, "auto", devices)
    free = [devices[0], devices[2]]
    assert choose_model("auto", None, "auto", free).identity == "Tongyi-MAI/Z-Image-Turbo"
    named = choose_model("Qwen/Qwen-Image", None, "auto", devices)
    assert named.identity == "Qwen/Qwen-Image"  # whether it fits is seen when its tasks are known
    assert in_groups(devices[:2], 2)[0].free == (79 + 1) * GIB


def test_a_large_model_in_less_memory_comes_before_the_demo_model(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.devices.memory_abilities.free_host_memory", lambda: 256 * GIB)
    driver.free[1] = 12 * GIB
    devices = choose_devices(environ={}, probe=list_gpus)
    model = choose_model("auto", None, "auto", devices)
    assert model.identity == "Tongyi-MAI/Z-Image-Turbo"
    assert "(auto: it fits into every chosen GPU)" in model.reason
    with pytest.raises(DeviceError, match=r"at least 22\.1 GiB \(memory: full\), but only 12 of "):
        choose_model("auto", None, "auto", devices, memory="full")


def test_host_memory_that_others_use_is_waited_for_and_that_is_not_there_is_not(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model whose weights have to wait there."""
    devices = [Device("cuda", 0, "GPU-0", 8 * GIB, free=8 * GIB)]
    monkeypatch.setattr("core.devices.memory_abilities.installed", lambda package: False)
    monkeypatch.setattr("core.devices.memory_abilities.free_host_memory", lambda: 4 * GIB)
    monkeypatch.setattr("core.devices.automatic_model.host_memory", lambda: 64 * GIB)
    with pytest.raises(DeviceError, match=r"GiB of host memory, but only 4\.0 are free"):
        choose_model("auto", None, "auto", devices, memory="group_offload")
    monkeypatch.setattr("core.devices.automatic_model.host_memory", lambda: 8 * GIB)
    model = choose_model("auto", None, "auto", devices)
    assert model.identity.startswith("demo-model")
    assert "GiB of host memory here, and there are 8.0" in model.reason


def test_gpus_say_what_they_compute(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCudaComputeCapability", lambda index: (8, 9 - index))
    driver.mig = {2}
    devices = choose_devices(environ={}, probe=list_gpus)
    assert [device.capability for device in devices] == [(8, 9), (8, 8)]
    assert in_groups(devices, 2)[0].capability == (8, 8)


def test_a_driver_that_cannot_list_its_gpus_is_named(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("core.devices.nvml.logger.warning", said.append)

    def mismatch() -> None:
        raise pynvml.NVMLError_LibRmVersionMismatch()

    monkeypatch.setattr(pynvml, "nvmlInit", mismatch)
    assert list_gpus() == [] and "mismatch" in said[0].lower()
