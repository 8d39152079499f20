"""Loads a pipeline of diffusers as its worker's settings say."""

from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub.constants import is_offline_mode
from transformers.utils import is_torchvision_available

from core.worker_spec import WorkerSpec
from workers.models import memory
from workers.processors import load_processor
from workers.torch_device import dtype_of


def load_pipeline(spec: WorkerSpec, device: torch.device) -> Any:
    """The pipeline of a model's folder or hub id, in memory as the worker's mode says."""
    dtype = dtype_of(spec, device)
    pipeline = DiffusionPipeline.from_pretrained(
        spec.model,
        revision=spec.revision,
        variant=spec.variant,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=is_offline_mode(),
        **memory.arguments(spec, dtype),
        **_parts_without_torchvision(spec),
    )
    memory.settle(pipeline, spec, dtype, device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _parts_without_torchvision(spec: WorkerSpec) -> dict[str, Any]:
    """A vision-language text encoder's processor, which otherwise wants torchvision."""
    if is_torchvision_available():
        return {}
    config = DiffusionPipeline.load_config(spec.model, revision=spec.revision)
    if config.get("processor", [None])[0] != "transformers":
        return {}
    return {"processor": load_processor(spec.model, spec.revision, "processor")}
