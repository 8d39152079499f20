"""Brings a pipeline of diffusers into memory in one of the modes of `core.memory_modes`.

A mode is two steps: what `from_pretrained` is told, and what is done to the pipeline afterwards.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, PipelineQuantizationConfig
from diffusers.hooks import apply_layerwise_casting
from huggingface_hub.constants import is_offline_mode
from torch import nn

from core.errors import InputError
from core.memory_modes import Mode, Part, comes_to_host_memory, is_kept, part_of
from core.worker_spec import WorkerSpec
from workers.torch_device import device_map

# torchao divides rows by their largest number, also where that is 0, as in an empty prompt of SDXL.
LEAST_ACTIVATION = 1e-12
STORED = torch.float8_e4m3fn  # of the formats of 8 bits the one with more digits


def arguments(spec: WorkerSpec, dtype: torch.dtype) -> dict[str, Any]:
    """What `DiffusionPipeline.from_pretrained` is told of the worker's mode."""
    if spec.memory == "full":
        return {"device_map": device_map(spec)}
    if comes_to_host_memory(spec.memory):
        # Not by a device map: with one, diffusers takes no hooks off before it loads a LoRA.
        return {}
    configs = {}
    for name, (library, kind) in _quantised_components(spec).items():
        source = diffusers if library == "diffusers" else transformers
        layers = _layers_of(spec, name, library, kind)
        configs[name] = quantization(source, spec.memory, dtype, layers)
    quantised = PipelineQuantizationConfig(quant_mapping=configs)
    return {"device_map": device_map(spec), "quantization_config": quantised}


def settle(pipeline: Any, spec: WorkerSpec, dtype: torch.dtype, device: torch.device) -> None:
    """Put a loaded pipeline's weights where the mode wants them.

    Args:
        device: on which it computes.
    """
    if spec.memory == "full":
        return
    vae: Any = getattr(pipeline, "vae", None)
    if hasattr(vae, "enable_slicing"):
        vae.enable_slicing()  # pictures that are drawn together are decoded one by one
    match spec.memory:
        case "fp8_cast":
            for name, component in pipeline.components.items():
                part = part_of(name, type(component).__name__)
                if part is not None and isinstance(component, nn.Module):
                    refuse_twice(spec, name, getattr(component, "hf_quantizer", None))
                    store_in_8_bits(component, part, dtype, device)
            pipeline.to(device)
        case "offload":
            # diffusers calls it again, without a device, when it has loaded a LoRA.
            enable = partial(pipeline.enable_model_cpu_offload, device=device)
            pipeline.enable_model_cpu_offload = enable
            enable()
        case "sequential_offload":
            enable = partial(pipeline.enable_sequential_cpu_offload, device=device)
            pipeline.enable_sequential_cpu_offload = enable
            enable()
        case "group_offload":
            # The autoencoder is small, and group offloading does not see its `decode`.
            pipeline.enable_group_offload(**group_offload(device), exclude_modules=["vae"])


def group_offload(device: torch.device) -> dict[str, Any]:
    """Arguments of diffusers' group offloading: layer by layer, the next one while one computes."""
    streams = device.type == "cuda"
    return {
        "onload_device": device,
        "offload_type": "leaf_level",
        "use_stream": streams,
        # Else the host waits for the device after each layer.
        "record_stream": streams,
    }


def store_in_8_bits(model: nn.Module, part: Part, dtype: torch.dtype, device: torch.device) -> None:
    """Cast a model's layers to `dtype` for each use, layer by layer, so that it always fits.

    Args:
        device: where the layers shall lie; the rest of the model is left where it is.
    """
    kept = [name for name, _ in _layers(model) if not _stored(model, part, name)]
    for name, layer in _layers(model):
        if name not in kept:
            layer.to(device).to(STORED)
    # Full names as patterns. PEFT's layers, which come later, are none of these.
    skipped = tuple(f"^{name}$".replace(".", r"\.") for name in kept)
    apply_layerwise_casting(
        model, STORED, dtype, skip_modules_pattern=skipped, skip_modules_classes=(nn.Embedding,)
    )


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers that diffusers' layerwise casting is made for, less embeddings."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            yield name, module


def _stored(model: Any, part: Part, name: str) -> bool:
    """Whether a layer is stored in fewer bits: what its authors except counts, too."""
    own = (
        *(getattr(model, "_skip_layerwise_casting_patterns", None) or ()),
        *(getattr(model, "_keep_in_fp32_modules", None) or ()),
    )
    return not is_kept(part, name) and not any(pattern in name for pattern in own)


def _quantised_components(spec: WorkerSpec) -> dict[str, tuple[str, str]]:
    """Library and class, by name, of the components that are stored in fewer bits."""
    config = DiffusionPipeline.load_config(
        spec.model, revision=spec.revision, local_files_only=is_offline_mode()
    )
    found = {}
    for name, value in config.items():
        if isinstance(value, list | tuple) and len(value) == 2 and all(value):
            library, kind = map(str, value)
            if library in ("diffusers", "transformers") and part_of(name, kind):
                found[name] = (library, kind)
    return found


@dataclass(frozen=True)
class LinearLayers:
    """Names of a model's linear layers: what stays as it is in every mode, and what does not."""

    kept: list[str]
    stored: list[str]

    @classmethod
    def of(cls, model: nn.Module, part: Part) -> "LinearLayers":
        names = [name for name, layer in _layers(model) if isinstance(layer, nn.Linear)]
        stored = [name for name in names if _stored(model, part, name)]
        return cls([name for name in names if name not in stored], stored)

    @property
    def kept_as_diffusers_reads_it(self) -> list[str]:
        """Names of layers to keep, less those that diffusers would find in other names, too.

        To it FLUX's `proj_out` means a seventh of the model, by the names of its blocks' layers.
        """
        within = [f".{name}" for name in self.stored]
        return [
            name
            for name in self.kept
            if not any(f"{name}." in other or other.endswith(f".{name}") for other in within)
        ]


def _layers_of(spec: WorkerSpec, component: str, library: str, kind: str) -> LinearLayers:
    """A component's linear layers, from its config alone."""
    where: dict[str, Any] = {"subfolder": component, "revision": spec.revision}
    where["local_files_only"] = is_offline_mode()
    cls: Any = getattr(diffusers if library == "diffusers" else transformers, kind)
    if library == "diffusers":
        config: Any = cls.load_config(spec.model, **where)
        refuse_twice(spec, component, config.get("quantization_config"))
    else:
        config = cls.config_class.from_pretrained(spec.model, **where)
        refuse_twice(spec, component, getattr(config, "quantization_config", None))
    with torch.device("meta"):
        model = cls.from_config(config) if library == "diffusers" else cls(config)
    part = part_of(component, kind)
    assert part is not None
    return LinearLayers.of(model, part)


def refuse_twice(spec: WorkerSpec, what: str, by: object) -> None:
    """Raises InputError for what was saved in fewer bits, by a config or quantizer, if by any."""
    if by is not None:
        raise InputError(
            f"memory: {spec.memory} cannot be used with {spec.model}, whose {what} was saved in "
            "fewer bits already; use full, or a mode in which weights wait."
        )


def quantization(source: Any, mode: Mode, dtype: torch.dtype, layers: LinearLayers) -> Any:
    """A quantization config of diffusers or transformers, whichever is the `source`."""
    if mode == "nf4":
        kept = layers.kept_as_diffusers_reads_it if source is diffusers else layers.kept
        return source.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=kept,
        )
    from torchao.quantization import (
        Float8DynamicActivationFloat8WeightConfig,
        FqnToConfig,
        Int8WeightOnlyConfig,
        PerRow,
    )

    # Its settings of the compiler would count for all that this process compiles.
    if mode == "fp8":
        how = Float8DynamicActivationFloat8WeightConfig(
            granularity=PerRow(),
            activation_value_lb=LEAST_ACTIVATION,
            set_inductor_config=False,
        )
    else:
        how = Int8WeightOnlyConfig(set_inductor_config=False)
    if source is diffusers:
        by_name = OrderedDict[str, Any]((name, None) for name in layers.kept)
        return diffusers.TorchAoConfig(FqnToConfig(by_name | {"_default": how}))
    return source.TorchAoConfig(how, modules_to_not_convert=layers.kept)
