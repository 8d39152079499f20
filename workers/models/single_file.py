"""Loads a pipeline of which the denoiser, or all, is in one file; see `core.checkpoints`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, GGUFQuantizationConfig
from huggingface_hub.constants import is_offline_mode

from core.checkpoints.single_file import GGUF, SingleFile, inspect_single_file
from core.errors import InputError
from core.worker_spec import WorkerSpec
from workers.torch_device import dtype_of


def load_single_file(spec: WorkerSpec, device: torch.device, parts: Mapping[str, Any]) -> Any:
    """The pipeline, its weights on the device, or on the CPU where a memory mode moves them.

    Args:
        parts: of the pipeline, by name, that are loaded already.

    Raises:
        InputError: the file does not fit its base model.
    """
    found = inspect_single_file(Path(spec.model))
    config = DiffusionPipeline.load_config(spec.base_model, revision=spec.revision)
    load = _whole if found.whole else _denoiser_and_base
    try:
        pipeline = load(spec, device, config, parts)
    except NotImplementedError as error:
        if "meta tensor" not in str(error):
            raise
        # diffusers leaves what it did not find without content, and then wants to convert it.
        raise InputError(
            f"model: {spec.model} lacks weights that a {config['_class_name']} like "
            f"{spec.base_model} has; is it of another model?"
        ) from None
    _check_complete(pipeline, spec)
    _follow_training(pipeline, found)
    return pipeline.to(device) if spec.memory == "full" else pipeline


def _whole(
    spec: WorkerSpec, device: torch.device, config: Mapping[str, Any], parts: Mapping[str, Any]
) -> Any:
    """Load a whole checkpoint from one file to the CPU; diffusers can put it nowhere else."""
    kind = getattr(diffusers, config["_class_name"])
    if not hasattr(kind, "from_single_file"):
        raise InputError(f"model: {kind.__name__} cannot be loaded from one file.")
    return kind.from_single_file(
        spec.model,
        config=spec.base_model,
        revision=spec.revision,
        dtype=dtype_of(spec, device),
        local_files_only=is_offline_mode(),
        **parts,
    )


def _denoiser_and_base(
    spec: WorkerSpec, device: torch.device, config: Mapping[str, Any], parts: Mapping[str, Any]
) -> Any:
    name = "transformer" if "transformer" in config else "unet"
    kind: Any = getattr(diffusers, config[name][1], None)
    if not hasattr(kind, "from_single_file"):
        raise InputError(f"model: the {name} of {spec.base_model} cannot be loaded from one file.")
    dtype, quantised = dtype_of(spec, device), {}
    if spec.model.lower().endswith(GGUF):
        quantised["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    denoiser = kind.from_single_file(
        spec.model,
        config=spec.base_model,
        config_revision=spec.revision,
        subfolder=name,
        dtype=dtype,
        device=device if spec.memory == "full" else "cpu",
        local_files_only=is_offline_mode(),
        **quantised,
    )
    return DiffusionPipeline.from_pretrained(
        spec.base_model,
        revision=spec.revision,
        variant=spec.variant,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=is_offline_mode(),
        **{name: denoiser},
        **parts,
    )


def _check_complete(pipeline: Any, spec: WorkerSpec) -> None:
    """Raises InputError where the file lacks weights of a part that it should hold whole."""
    for name, part in pipeline.components.items():
        missing = [
            key for key, tensor in getattr(part, "named_parameters", dict)() if tensor.is_meta
        ]
        if missing:
            raise InputError(
                f"model: {spec.model} lacks {len(missing)} weights of the {name} of "
                f"{spec.base_model}, such as {missing[0]}; is it of another model?"
            )


def _follow_training(pipeline: Any, found: SingleFile) -> None:
    """Take the scheduler's settings that the file asks for by marks, as ComfyUI reads them."""
    changes: dict[str, Any] = {}
    if found.v_prediction:
        changes["prediction_type"] = "v_prediction"
    if found.zero_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if changes:
        scheduler = pipeline.scheduler
        pipeline.scheduler = type(scheduler).from_config(scheduler.config, **changes)
