"""Brings a judge's model into memory in one of the modes of `core.memory_modes`."""

from typing import Any

import torch
import transformers
from accelerate import cpu_offload
from diffusers.hooks import apply_group_offloading
from huggingface_hub.constants import is_offline_mode

from core.memory_modes import comes_to_host_memory
from core.worker_spec import WorkerSpec
from workers.models.memory import (
    LinearLayers,
    group_offload,
    quantization,
    refuse_twice,
    store_in_8_bits,
)
from workers.torch_device import device_map


def arguments(spec: WorkerSpec, kind: Any, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` is told of the worker's mode; `kind` is the class that loads."""
    if spec.memory == "full":
        return {"device_map": device_map(spec)}
    if comes_to_host_memory(spec.memory):
        return {}
    config = transformers.AutoConfig.from_pretrained(
        spec.model, revision=spec.revision, local_files_only=is_offline_mode()
    )
    refuse_twice(spec, "language model", getattr(config, "quantization_config", None))
    with torch.device("meta"):
        layers = LinearLayers.of(kind.from_config(config), "encoder")
    quantised = quantization(transformers, spec.memory, dtype, layers)
    return {"device_map": device_map(spec), "quantization_config": quantised}


def settle(model: Any, spec: WorkerSpec, dtype: torch.dtype, device: torch.device) -> Any:
    """The loaded model, its weights where the mode wants them; it computes on `device`."""
    match spec.memory:
        case "fp8_cast":
            refuse_twice(spec, "language model", getattr(model, "hf_quantizer", None))
            store_in_8_bits(model, "encoder", dtype, device)
            model.to(device)
        case "group_offload":
            apply_group_offloading(model, **group_offload(device))
        case "sequential_offload":
            cpu_offload(model, device)
    return model
