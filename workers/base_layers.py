"""A model's layers under their adapters, however a memory mode stores them and wherever it does.

Weights may be 4-bit numbers packed into bytes, tensors of torchao, 8-bit floats that are cast for
each use, or wait in host memory: then a module shows none, or one on the CPU.
"""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where a layer computes, and in which type of numbers."""

    device: torch.device
    dtype: torch.dtype


def place_of(pipeline: Any, part: str, layer: Any) -> Place:
    """Of a layer in a part of a pipeline."""
    execution: torch.device = pipeline._execution_device
    weight = layer.weight
    waits = weight.device.type != execution.type
    plain = weight.is_floating_point() and weight.element_size() > 1
    dtype = weight.dtype if plain else getattr(pipeline, part).dtype
    return Place(execution if waits else weight.device, dtype)


def shape_of(layer: Any) -> tuple[int, ...]:
    """Of a layer's weight: outputs, inputs, and the kernel of a convolution."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return tuple(layer.weight.shape)


def numbers_of(layer: Any) -> Tensor:
    """A layer's weight as it is stored, fetched from where it waits."""
    with align_module_device(layer):  # of layers that show none while they wait
        weight: Tensor = layer.weight.detach()
    return weight


def weight_of(layer: Any) -> Tensor:
    """A layer's weight as the layer computes with it, in float32."""
    weight: Any = numbers_of(layer)
    state = getattr(weight, "quant_state", None) or getattr(layer.weight, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        whole: Tensor = dequantize_4bit(weight.data, state)
        return whole.float()
    of_torchao = type(weight) not in (Tensor, nn.Parameter)
    whole = weight.dequantize() if of_torchao else weight
    return whole.float()


def bias_of(layer: Any) -> Tensor | None:
    """A layer's bias as it is stored, fetched from where it waits."""
    with align_module_device(layer):
        bias: Any = layer.bias
    return None if bias is None else bias.detach()
