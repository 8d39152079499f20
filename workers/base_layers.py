"""A model's layers under their adapters, however a memory mode stores them and wherever it does.

Weights may be 4-bit numbers or GGUF's blocks packed into bytes, tensors of torchao, 8-bit floats
that are cast for each use, or wait in host memory: then a module shows none, or one on the CPU.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

BESIDE = "beside"  # a layer's attribute


@dataclass(frozen=True)
class Place:
    """The device on which a layer computes, and its type of numbers."""

    device: torch.device
    dtype: torch.dtype


class Places:
    """Where the layers of a pipeline compute, while nobody moves or converts it.

    The pipeline's own device is asked for once: diffusers looks at every module of it for that,
    and a LoRA of a large model has hundreds of layers.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._execution: torch.device = pipeline._execution_device

    def of(self, part: str, layer: Any) -> Place:
        """Device and type of a layer in a part of the pipeline."""
        weight = layer.weight
        waits = weight.device.type != self._execution.type
        plain = weight.is_floating_point() and weight.element_size() > 1
        dtype = weight.dtype if plain else getattr(self._pipeline, part).dtype
        return Place(self._execution if waits else weight.device, dtype)


def shape_of(layer: Any) -> tuple[int, ...]:
    """Shape of a layer's weight: outputs, inputs, and the kernel of a convolution."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return tuple(layer.weight.shape)


def numbers_of(layer: Any) -> Tensor:
    """A layer's weight as it is stored, fetched from where it waits."""
    with align_module_device(layer):  # of layers that show none while they wait
        weight: Tensor = layer.weight.detach()
    return weight


class Beside:
    """A plain LoRA that is added to a layer's output, as its weight cannot take it."""

    def __init__(self, down: Tensor, up: Tensor, scale: float, place: Place) -> None:
        # In memory of their own: on a CPU they may be mapped from the file.
        self._down, self._up = (f.to(place.device, place.dtype, copy=True) for f in (down, up))
        # In a tensor: for another number each layer would be compiled by itself.
        self._scale = torch.tensor(scale, device=place.device)

    def added(self, layer: nn.Linear | nn.Conv2d, x: Tensor, output: Tensor) -> Tensor:
        """The output with its part. `x`: what the layer was given."""
        x, down, up = (t.to(output.device, output.dtype) for t in (x, self._down, self._up))
        if isinstance(layer, nn.Conv2d):
            inner = conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
            return output + self._scale * conv2d(inner, up)
        return output + self._scale * linear(linear(x, down), up)

    def change(self, weight: Tensor) -> Tensor:
        """The change of the layer's weight that this stands for, in float32."""
        down, up = (f.to(weight.device, torch.float32).flatten(1) for f in (self._down, self._up))
        return self._scale.to(weight.device) * (up @ down).reshape(weight.shape)


def put_beside(layer: Any, beside: Beside) -> None:
    """Make a layer add this to its outputs, whoever wraps it or compiles it.

    Not by a hook: torch does not look at hooks when it takes one layer's compiled code for another.
    """
    if not hasattr(layer, BESIDE):
        setattr(layer, BESIDE, [])
        kind: Any = type(layer)
        layer.__class__ = _with_what_is_beside(kind)
    getattr(layer, BESIDE).append(beside)


@functools.cache
def _with_what_is_beside(kind: Any) -> type:
    def call(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = kind.__call__(self, x, *args, **kwargs)
        for beside in self.beside:
            output = beside.added(self, x, output)
        return output

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})


def weight_of(layer: Any) -> Tensor:
    """A layer's weight as the layer computes with it, in float32.

    What lies beside it counts as a part: a DoRA has to know the length of the whole.
    """
    weight = _stored(layer)
    for beside in getattr(layer, BESIDE, ()):
        weight = weight + beside.change(weight)
    return weight


def _stored(layer: Any) -> Tensor:
    weight: Any = numbers_of(layer)
    state = getattr(weight, "quant_state", None) or getattr(layer.weight, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        whole: Tensor = dequantize_4bit(weight.data, state)
        return whole.float()
    if hasattr(weight, "quant_type"):
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        unpacked: Tensor = dequantize_gguf_tensor(weight)
        return unpacked.float()
    of_torchao = type(weight) not in (Tensor, nn.Parameter)
    whole = weight.dequantize() if of_torchao else weight
    return whole.float()


def bias_of(layer: Any) -> Tensor | None:
    """A layer's bias as it is stored, fetched from where it waits."""
    with align_module_device(layer):
        bias: Any = layer.bias
    return None if bias is None else bias.detach()
