"""Parts of a model that are placed on GPUs, known from its configs before a weight is read."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import DiffusionPipeline, ModelMixin, pipelines
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from workers.placement import Part, Place

# Of a part's bytes: shorter lists of blocks, such as the refiners before a transformer's main
# blocks, stay together at home, because what several of them made is computed with together.
WORTH_SPLITTING = 0.2
ROOM_FOR_LORAS = 0.05  # of a denoiser's bytes: one LoRA of rank 64 takes some 3 %
_DENOISERS = ("transformer", "unet")


def classes_in(folder: Path) -> dict[str, Any]:
    """Classes, by name, of a pipeline's parts that are models of diffusers or transformers."""
    found = {}
    for name, entry in DiffusionPipeline.load_config(folder).items():
        if not isinstance(entry, (list, tuple)) or not all(isinstance(e, str) for e in entry):
            continue
        library, kind_name = entry
        if library in ("diffusers", "transformers"):
            module: Any = importlib.import_module(library)
        else:  # a pipeline's own classes
            module = getattr(pipelines, library, None)
        kind = getattr(module, kind_name, None)
        if isinstance(kind, type) and issubclass(kind, (ModelMixin, PreTrainedModel)):
            found[name] = kind
    return found


def without_memory(kind: Any, source: str | Path, revision: str | None = None) -> nn.Module:
    """A model as its config describes it, with tensors that have a size and no content.

    Args:
        kind: a class of diffusers or transformers, or one of transformers' `Auto…`.
    """
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        loader: Any = kind
        if issubclass(kind, PreTrainedModel):
            with torch.device("meta"):
                return kind(loader.config_class.from_pretrained(source))
        with init_empty_weights():
            model: nn.Module = loader.from_config(loader.load_config(source))
        return model
    config = AutoConfig.from_pretrained(source, revision=revision)
    with torch.device("meta"):
        chosen: nn.Module = kind.from_config(config)
    return chosen


def part_of(name: str, model: nn.Module, dtype: torch.dtype) -> Part:
    """A model as a part to be placed, with a denoiser's room for LoRAs."""
    sizes = _sizes(model, dtype, 1 + ROOM_FOR_LORAS if name.startswith(_DENOISERS) else 1.0)
    total, kind = sum(sizes.values()), type(model).__name__
    if hasattr(model, "encode") and hasattr(model, "decode"):  # before which no hook stands
        return Part(name, kind, total, at_home=True)
    blocks: list[tuple[str, int]] = []
    for names in _lists_of_blocks(model):
        own = [(block, _inside(sizes, block)) for block in names]
        if sum(size for _, size in own) >= WORTH_SPLITTING * total:
            blocks += own
    return Part(name, kind, total - sum(size for _, size in blocks), tuple(blocks))


def device_map(at: Place, devices: Sequence[torch.device]) -> dict[str, torch.device]:
    """A place in the libraries' words; "" stands for all that is not named."""
    away = {name: devices[gpu] for name, gpu in at.blocks.items() if gpu != at.gpu}
    return {"": devices[at.gpu], **away}


def _sizes(model: nn.Module, dtype: torch.dtype, factor: float) -> dict[str, int]:
    """Bytes of each tensor once it is loaded."""
    precise = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    sizes = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        loaded_as = dtype if tensor.is_floating_point() else tensor.dtype
        if precise & set(name.split(".")):
            loaded_as = torch.float32
        sizes[name] = int(tensor.numel() * loaded_as.itemsize * factor)
    return sizes


def _lists_of_blocks(model: nn.Module) -> list[list[str]]:
    """Names of the blocks of each list that its library allows to be divided between blocks."""
    whole: set[str] = set()
    for module in model.modules():
        whole |= set(getattr(module, "_no_split_modules", None) or ())
        whole |= set(getattr(module, "_repeated_blocks", None) or ())
    found: list[list[str]] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{block}.") for names in found for block in names)
        if inside or not isinstance(module, nn.ModuleList) or len(module) < 2:
            continue
        if all(type(block).__name__ in whole for block in module):
            found.append([f"{name}.{i}" for i in range(len(module))])
    return found


def _inside(sizes: Mapping[str, int], module: str) -> int:
    return sum(size for name, size in sizes.items() if name.startswith(f"{module}."))
