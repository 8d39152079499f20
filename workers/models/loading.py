"""Loads a pipeline of diffusers as its worker's settings say."""

from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub.constants import is_offline_mode
from transformers.utils import is_torchvision_available

from core.worker_spec import WorkerSpec
from workers.models.single_file import load_single_file
from workers.processors import load_processor
from workers.torch_device import device_map, dtype_of, freeze


def load_pipeline(spec: WorkerSpec, device: torch.device) -> Any:
    """The pipeline of a model's folder, file or hub id, its weights on the device."""
    parts = _parts_without_torchvision(spec)
    if spec.base_model is not None:
        pipeline = load_single_file(spec, device, parts)
    else:
        pipeline = _of_folder(spec, device, parts)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            freeze(part)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _of_folder(spec: WorkerSpec, device: torch.device, parts: dict[str, Any]) -> Any:
    return DiffusionPipeline.from_pretrained(
        spec.model,
        revision=spec.revision,
        variant=spec.variant,
        dtype=dtype_of(spec, device),
        use_safetensors=True,
        device_map=device_map(spec),
        local_files_only=is_offline_mode(),
        **parts,
    )


def _parts_without_torchvision(spec: WorkerSpec) -> dict[str, Any]:
    """A vision-language text encoder's processor, which otherwise wants torchvision."""
    if is_torchvision_available():
        return {}
    source = spec.base_model or spec.model
    config = DiffusionPipeline.load_config(source, revision=spec.revision)
    if config.get("processor", [None])[0] != "transformers":
        return {}
    return {"processor": load_processor(source, spec.revision, "processor")}
