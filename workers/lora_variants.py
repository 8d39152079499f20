"""DoRA and LoKr as variants of PEFT's LoRA layers, with arithmetic of their own.

PEFT's DoRA measures the weights anew in every step, and its change is not proportional to the
strength; diffusers loads LoKr for a few models. Here, as in ComfyUI, strength multiplies the
whole change of a weight.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import LoraVariant
from torch import Tensor, nn
from torch.nn.functional import conv2d

from workers.base_layers import Place, bias_of, weight_of
from workers.lora_updates import Kronecker, LowRank, Update


def is_plain(update: Update) -> bool:
    """Whether the two factors of a LoRA are all there is."""
    return isinstance(update, LowRank) and update.magnitude is None


def variant_for(update: Update, place: Place) -> "Dora | LoKr | None":
    """Make what a layer adds for DoRA or LoKr, from its weight; None for a plain LoRA."""
    if isinstance(update, Kronecker):
        return LoKr(update, place)
    return None if update.magnitude is None else Dora(update, place)


class Dora(LoraVariant):  # type: ignore[misc]
    """Brings each row or column of the changed weight to the length that was learned for it."""

    def __init__(self, update: LowRank, place: Place) -> None:
        base = update.layer.module
        change = update.product(place.device)
        factor = update.factor(weight_of(base).to(place.device) + update.scale * change)
        factor = factor[:, None, None] if isinstance(base, nn.Conv2d) else factor
        # Numbers in tensors: for others each layer would be compiled by itself.
        self._scaled = (factor * update.scale).to(place.dtype)
        self._less_one = (factor - 1).to(place.dtype)
        self._by_input = update.by_input
        bias = bias_of(base)  # which may wait elsewhere when it is wanted
        bias = None if bias is None else bias.to(place.device, place.dtype)
        self._bias = bias[:, None, None] if bias is not None and change.dim() == 4 else bias

    def forward(
        self, module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any
    ) -> Tensor:
        base, strength = module.get_base_layer(), module.scaling[active_adapter]
        down, up = module.lora_A[active_adapter], module.lora_B[active_adapter]
        if self._by_input:
            change = self._without_bias(base(self._less_one * x))
            change = change + up(down(self._scaled * x))
        else:
            own = _without_others(module, active_adapter, x, result)
            change = self._less_one * self._without_bias(own)
            change = change + self._scaled * up(down(x))
        changed: Tensor = result + change * strength
        return changed

    def _without_bias(self, result: Tensor) -> Tensor:
        return result if self._bias is None else result - self._bias


class LoKr(LoraVariant):  # type: ignore[misc]
    """Multiplies with the two factors in turn: their product would be as large as the weight."""

    def __init__(self, update: Kronecker, place: Place) -> None:
        self._inner = update.w2.to(place.device, place.dtype)
        outer = update.w1[update.blocks].float() * update.scale
        self._outer = outer.to(place.device, place.dtype)
        self._rows = update.rows
        self._swapped = update.target.swapped

    def forward(
        self, module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any
    ) -> Tensor:
        base = module.get_base_layer()
        if isinstance(base, nn.Conv2d):
            rows = self._convolved(base, x)
        else:
            blocks = x.unflatten(-1, (self._outer.shape[1], self._inner.shape[1]))
            rows = (self._outer @ (blocks @ self._inner.T)).flatten(-2)[..., self._rows]
        if self._swapped:
            rows = torch.cat(rows.chunk(2, dim=-1)[::-1], dim=-1)
        changed: Tensor = result + rows * module.scaling[active_adapter]
        return changed

    def _convolved(self, base: nn.Conv2d, x: Tensor) -> Tensor:
        blocks = x.unflatten(1, (self._outer.shape[1], self._inner.shape[1])).flatten(0, 1)
        inner = conv2d(blocks, self._inner, None, base.stride, base.padding, base.dilation)
        inner = inner.unflatten(0, (len(x), self._outer.shape[1]))
        rows = torch.einsum("ab,nbchw->nachw", self._outer, inner)
        return rows.flatten(1, 2)[:, self._rows]


def _without_others(module: Any, adapter: str, x: Tensor, result: Tensor) -> Tensor:
    """The layer's output without any LoRA: others of a stack may be in `result` by now."""
    first = next(name for name in module.active_adapters if name in module.lora_A)
    own: Tensor = result if first == adapter else module.get_base_layer()(x)
    return own
