"""Loads a pipeline of diffusers as its worker's settings say."""

from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub.constants import is_offline_mode

from core.errors import InputError
from core.worker_spec import WorkerSpec
from workers.model_loras import put_on_model_loras
from workers.models import memory
from workers.models.base import Log
from workers.models.single_file import load_single_file
from workers.models.without_torchvision import parts_without_torchvision
from workers.noise_schedule import check_schedule, set_schedule
from workers.processors import load_tokenizer_of
from workers.spread import load_spread_pipeline
from workers.torch_device import dtype_of, freeze


def load_pipeline(spec: WorkerSpec, device: torch.device, log: Log) -> Any:
    """The pipeline of a model's folder, file or hub id, in memory as the worker's mode says.

    It has the LoRAs and the noise schedule that the settings give to the model.
    """
    dtype = dtype_of(spec, device)
    check_schedule(spec.scheduler, spec.source, spec.revision)
    parts = parts_without_torchvision(spec.source, spec.revision)
    if spec.base_model is not None and spec.device_count > 1:
        raise InputError("gpus_per_worker: a model in one file cannot be spread over several GPUs.")
    if spec.base_model is not None:
        pipeline = load_single_file(spec, device, parts)
    elif spec.device_count > 1:
        pipeline = load_spread_pipeline(spec, parts, log)
    else:
        pipeline = _of_folder(spec, parts, dtype)
    if "tokenizer" in parts:
        # FLUX.2 gives its processor words alone, which the tokenizer inside takes as well.
        pipeline.tokenizer = load_tokenizer_of(spec.source, spec.revision, "tokenizer")
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            freeze(part)
    pipeline.set_progress_bar_config(disable=True)
    set_schedule(pipeline, spec.scheduler)
    if spec.memory == "fp8_cast":  # LoRAs stay beside weights of 8 bits, which would round them off
        memory.settle(pipeline, spec, dtype, device)
        put_on_model_loras(pipeline, spec.model_loras, device, log)
    else:  # hooks that move weights keep copies of them
        put_on_model_loras(pipeline, spec.model_loras, device, log)
        memory.settle(pipeline, spec, dtype, device)
    return pipeline


def _of_folder(spec: WorkerSpec, parts: dict[str, Any], dtype: torch.dtype) -> Any:
    return DiffusionPipeline.from_pretrained(
        spec.model,
        revision=spec.revision,
        variant=spec.variant,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=is_offline_mode(),
        **memory.arguments(spec, dtype),
        **parts,
    )
