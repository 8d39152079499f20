"""Memory modes on a machine without a GPU, as if there were one.

What computes is real: torchao and bitsandbytes have kernels for a CPU. They, diffusers and
accelerate refuse to begin without a GPU, or take one for granted.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.memory_modes import Mode
from core.worker_spec import WorkerSpec
from tests.lora_layouts import build
from tests.test_native_image_generator import spec_for

CPU = torch.device("cpu")
QUANTISED: tuple[Mode, ...] = ("fp8", "fp8_cast", "int8", "nf4")
OFFLOADED: tuple[Mode, ...] = ("offload", "group_offload", "sequential_offload")
MODES = QUANTISED + OFFLOADED


def no_log(level: str, text: str) -> None:
    """For what has nothing to tell."""


def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every mode load and run on the CPU."""
    import accelerate.hooks
    import bitsandbytes.nn.modules
    import torchao.quantization.quant_api
    from diffusers.quantizers.bitsandbytes import BnB4BitDiffusersQuantizer

    nothing: Any = lambda *args, **given: None  # noqa: E731
    monkeypatch.setattr(BnB4BitDiffusersQuantizer, "validate_environment", nothing)
    # Some CPUs have kernels for 4 bits that want sizes of large models.
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)
    monkeypatch.setattr(torchao.quantization.quant_api, "_check_hardware_support", nothing)
    put = accelerate.hooks.set_module_tensor_to_device

    def put_here(module: Any, name: str, device: Any, *args: Any, **given: Any) -> None:
        # To torch cpu:0 is another device than cpu, and what is copied there no parameter.
        put(module, name, "cpu" if str(device) == "cpu:0" else device, *args, **given)

    monkeypatch.setattr(accelerate.hooks, "set_module_tensor_to_device", put_here)


def dtype_for(mode: Mode) -> Any:
    """float32 shows best that nothing but the mode rounds; torchao's fp8 is for bfloat16 alone."""
    return "bfloat16" if mode == "fp8" else "float32"


def spec_in(mode: Mode, model: Path, **changes: Any) -> WorkerSpec:
    return replace(spec_for(str(model)), **{"memory": mode, "dtype": dtype_for(mode), **changes})


def saved(family: str, folder: Path) -> Path:
    """A checkpoint of a family of `tests.lora_layouts`."""
    model = folder / family
    if not model.exists():
        build(family).save_pretrained(model)
    return model
