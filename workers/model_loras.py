"""Puts the model's own LoRAs on when it is loaded: fused into its weights where that is exact.

A plain weight takes the change of all of them at once, computed in float32 and rounded one time to
the weight's type. In bfloat16 that is as near to the exact result as an adapter, which rounds what
it adds and then the sum (`docs/RECIPES.md` has figures); in float32 nothing is lost.

Weights that are quantised, stored in 8 bits or not in memory cannot take it. Their layers get the
change added behind their own arithmetic instead. PEFT wraps layers and unwraps them, and calls them
as they are, so tasks' LoRAs come and go above without touching it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from core.errors import InputError, LoraError
from core.model_lora import ModelLora
from workers.base_layers import Beside, Place, Places, put_beside
from workers.errors import blames_no_file
from workers.lora_adapter import LoraReader
from workers.lora_manager import LONGEST_REASON, check_unchanged, does_not_fit
from workers.lora_updates import Kronecker, LowRank, Update
from workers.lora_variants import is_plain
from workers.models.base import Log

EXACT_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class PutOn:
    """How the LoRAs are on the model: layers that have them in their weights, and beside these."""

    fused: int
    beside: int

    @property
    def shown(self) -> str:
        parts = [f"fused into {self.fused} layers"] if self.fused else []
        parts += [f"beside the weights of {self.beside} layers"] if self.beside else []
        return " and ".join(parts)


def put_on_model_loras(
    pipeline: Any, loras: Sequence[ModelLora], device: torch.device, log: Log
) -> None:
    """Put LoRAs on the model for every picture, and log in one line what was done.

    Args:
        device: where weights that wait in host memory are computed with.

    Raises:
        InputError: one does not fit the model, or cannot be put on weights as they are stored.
    """
    if not loras:
        return
    reader = LoraReader(pipeline, log)
    by_layer: dict[int, list[tuple[Update, ModelLora]]] = defaultdict(list)
    for lora in loras:
        for update in _updates(pipeline, reader, lora):
            by_layer[id(update.layer.module)].append((update, lora))
    for parts in by_layer.values():
        _check(parts)
    fused, places = 0, Places(pipeline)
    for parts in by_layer.values():
        if _is_exact(parts[0][0].layer.module.weight):
            _fuse(parts, device)
            fused += 1
        else:
            _add_beside(places, parts, device)
    done = PutOn(fused, len(by_layer) - fused)
    log("INFO", f"model LoRAs {done.shown}: {', '.join(lora.shown for lora in loras)}")


def _updates(pipeline: Any, reader: LoraReader, lora: ModelLora) -> Sequence[Update]:
    path = Path(lora.path)
    try:
        check_unchanged(path, lora.sha256)
        return reader.understand(path, load_file(path)).updates
    except LoraError as error:
        raise InputError(f"model_loras: {str(error).removeprefix('lora_path: ')}") from None
    except Exception as error:
        if blames_no_file(error):
            raise
        reason = " ".join(str(error).split())[:LONGEST_REASON] or repr(error)
        text = str(does_not_fit(path, pipeline, reason)).removeprefix("lora_path: ")
        raise InputError(f"model_loras: {text}") from error


def _is_exact(weight: Tensor) -> bool:
    """Whether a weight holds plain numbers of a type that is computed with."""
    plain = type(weight) in (nn.Parameter, Tensor) and type(weight.data) is Tensor
    return plain and not weight.is_meta and weight.dtype in EXACT_TYPES


def _check(parts: Sequence[tuple[Update, ModelLora]]) -> None:
    """Raises InputError for what can only be fused, on a weight that cannot."""
    for update, lora in parts:
        layer = update.layer
        if not is_plain(update) and not _is_exact(layer.module.weight):
            kind = "LoKr" if isinstance(update, Kronecker) else "DoRA"
            raise InputError(
                f"model_loras: {lora.name} is a {kind}, which can only be fused into weights of 16 "
                f"or 32 bits, and {layer.part}.{layer.name} is stored as "
                f"{type(layer.module.weight).__name__} ({layer.module.weight.dtype}). Load the "
                "model with `memory: full`, or use a plain LoRA."
            )


def _fuse(parts: Sequence[tuple[Update, ModelLora]], device: torch.device) -> None:
    weight = parts[0][0].layer.module.weight
    where = device if weight.device.type == "cpu" else weight.device
    whole = weight.detach().to(where, torch.float32)
    changed = whole.clone()
    for update, lora in parts:
        changed += lora.strength * _change(update, whole)
    rounded = changed.to(weight.dtype)
    if not bool(rounded.isfinite().all()):
        layer = parts[0][0].layer
        raise InputError(
            f"model_loras: with {parts[0][1].shown} the weights of {layer.part}.{layer.name} are "
            f"too large for {weight.dtype}; use another dtype or a smaller strength."
        )
    # In memory of its own: on a CPU the old one may be mapped from the checkpoint's file.
    weight.data = rounded.to(weight.device)


def _change(update: Update, weight: Tensor) -> Tensor:
    """What a LoRA at strength 1 adds to a weight, both in float32."""
    if isinstance(update, Kronecker):
        return _product(update, weight)
    change = update.scale * update.product(weight.device)
    if update.magnitude is None:
        return change
    changed = weight + change
    shape = [1] * weight.dim()
    shape[1 if update.by_input else 0] = -1
    return changed * update.factor(changed).reshape(shape) - weight


def _product(update: Kronecker, weight: Tensor) -> Tensor:
    """The rows of the Kronecker product that are this layer's."""
    inner = update.w2.to(weight.device, torch.float32)
    outer = update.w1[update.blocks].to(weight.device, torch.float32) * update.scale
    outer = outer.reshape(*outer.shape, *[1] * (inner.dim() - 2))
    rows = torch.kron(outer, inner)[update.rows]
    if update.target.swapped:
        rows = torch.cat(rows.chunk(2)[::-1])
    return rows.reshape(weight.shape)


def _add_beside(
    places: Places, parts: Sequence[tuple[Update, ModelLora]], device: torch.device
) -> None:
    """Let the layer add what its LoRAs change, in the type that it computes in."""
    for update, lora in parts:
        assert isinstance(update, LowRank)
        layer = update.layer
        place = places.of(layer.part, layer.module)
        if place.device.type == "cpu":
            place = Place(device, place.dtype)
        put_beside(
            layer.module, Beside(update.down, update.up, lora.strength * update.scale, place)
        )
