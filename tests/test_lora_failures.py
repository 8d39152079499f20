"""What breaks while a LoRA is loaded is put down to what broke, by both ways to keep LoRAs."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import LoraError
from core.messages import FailureKind
from tests.lora_layouts import family_with_loras
from tests.test_native_image_generator import drawn
from workers.errors import classify
from workers.lora_manager import check_unchanged

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
CUDA_ERROR = RuntimeError("CUDA error: an illegal memory access was encountered")
STALE = OSError(errno.ESTALE, "Stale file handle")


@pytest.fixture(params=["kept", "exchanged"])
def family(tiny_model: Path, request: pytest.FixtureRequest) -> Any:
    """With LoRAs kept as adapters of their own, or exchanged in place as for compiled blocks."""
    return family_with_loras(tiny_model, exchanged=request.param == "exchanged")


def break_off(family: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have the next LoRAs' layers break off when they are all in place."""
    load = family.pipeline.load_lora_weights

    def broken(*args: Any, **kwargs: Any) -> None:
        load(*args, **kwargs)
        raise error

    monkeypatch.setattr(family.pipeline, "load_lora_weights", broken)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OUT_OF_MEMORY, "out_of_memory"), (CUDA_ERROR, "device"), (STALE, "error")],
    ids=["memory", "device", "disk"],
)
@pytest.mark.parametrize("loaded_before", [False, True])
def test_memory_device_and_disk_are_not_the_loras_fault(
    family: Any,
    tiny_loras: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: FailureKind,
    loaded_before: bool,
) -> None:
    if loaded_before:
        drawn(family, tiny_loras[1])
    break_off(family, monkeypatch, error)
    with pytest.raises(type(error)) as caught:
        drawn(family, tiny_loras[0])
    assert classify(caught.value)[0] == kind


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, STALE], ids=["memory", "disk"])
def test_the_lora_works_in_the_next_attempt_and_others_as_before(
    family: Any, tiny_loras: list[Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first, second, plain = (drawn(family, lora) for lora in (*tiny_loras, None))
    family.free_memory()  # the first is forgotten
    with monkeypatch.context() as broken:
        break_off(family, broken, error)
        with pytest.raises(type(error)):
            drawn(family, tiny_loras[0])
    assert np.array_equal(plain, drawn(family))
    assert np.array_equal(first, drawn(family, tiny_loras[0]))
    assert np.array_equal(second, drawn(family, tiny_loras[1]))


@pytest.mark.parametrize("family", ["exchanged"], indirect=True)
def test_a_file_that_does_not_fit_in_the_devices_memory_is_not_blamed(
    family: Any, tiny_loras: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OUT_OF_MEMORY

    monkeypatch.setattr("workers.lora_hotswap.load_file", broken)
    with pytest.raises(torch.OutOfMemoryError):
        drawn(family, tiny_loras[0])


def test_only_a_file_that_cannot_be_had_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LoraError, match="cannot be read: No such file"):
        check_unchanged(tmp_path / "gone.safetensors", "0" * 64)

    def stale(*args: Any, **kwargs: Any) -> None:
        raise STALE

    monkeypatch.setattr(Path, "open", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        check_unchanged(tmp_path / "stale.safetensors", "0" * 64)
