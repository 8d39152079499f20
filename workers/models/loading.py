"""Loads a pipeline of diffusers as its worker's settings say."""

from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub.constants import is_offline_mode
from transformers.utils import is_torchvision_available

from core.worker_spec import WorkerSpec
from workers.model_loras import put_on_model_loras
from workers.models.base import Log
from workers.models.single_file import load_single_file
from workers.noise_schedule import check_schedule, set_schedule
from workers.processors import load_processor, load_tokenizer_of, needs_torchvision
from workers.torch_device import device_map, dtype_of


def load_pipeline(spec: WorkerSpec, device: torch.device, log: Log) -> Any:
    """The pipeline of a model's folder, file or hub id, its weights on the device.

    It has the LoRAs and the noise schedule that the settings give to the model.
    """
    source = spec.base_model or spec.model
    check_schedule(spec.scheduler, source, spec.revision)
    parts = _parts_without_torchvision(source, spec.revision)
    if spec.base_model is not None:
        pipeline = load_single_file(spec, device, parts)
    else:
        pipeline = _of_folder(spec, parts, device)
    if "tokenizer" in parts:
        # FLUX.2 gives its processor words alone, which the tokenizer inside takes as well.
        pipeline.tokenizer = load_tokenizer_of(source, spec.revision, "tokenizer")
    pipeline.set_progress_bar_config(disable=True)
    set_schedule(pipeline, spec.scheduler)
    put_on_model_loras(pipeline, spec.model_loras, device, log)
    return pipeline


def _of_folder(spec: WorkerSpec, parts: dict[str, Any], device: torch.device) -> Any:
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


def _parts_without_torchvision(source: str, revision: str | None) -> dict[str, Any]:
    """A vision-language text encoder's processor, which otherwise wants torchvision."""
    if is_torchvision_available():
        return {}
    config = DiffusionPipeline.load_config(source, revision=revision)
    parts = {}
    if config.get("processor", [None])[0] == "transformers":
        parts["processor"] = load_processor(source, revision, "processor")
    if needs_torchvision((config.get("tokenizer") or [None, None])[1]):
        parts["tokenizer"] = None  # diffusers would refuse another class; it comes afterwards
    return parts
