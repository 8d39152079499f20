"""What one layer of a LoRA file makes of one layer, or of several fused ones, of the model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from core.checkpoints.lora_names import Role
from workers.lora_targets import Layer, Target

ROUNDING = 1e-4  # of the largest number
Tensors = Mapping[Role, Tensor]
Scale = Callable[[Layer, int], float]
"""alpha / rank of a layer, where no tensor says it."""


@dataclass(frozen=True)
class LowRank:
    """A layer's weight W becomes W + strength · scale · up · down.

    Attributes:
        scale: alpha / rank.
        magnitude: of DoRA. With it the weight becomes W + strength · (D - W), where D is
            W + scale · up · down with each row brought to the length that this says.
        by_input: the magnitude is of columns instead of rows.
    """

    layer: Layer
    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None
    by_input: bool = False

    def product(self, device: torch.device) -> Tensor:
        """Up · down as the layer's weight is shaped, in float32."""
        down, up = (f.to(device, torch.float32).flatten(1) for f in (self.down, self.up))
        return (up @ down).reshape(self.layer.shape)

    def factor(self, changed: Tensor) -> Tensor:
        """What brings each row, or column, of W + scale · up · down to the magnitude; of DoRA."""
        assert self.magnitude is not None
        across = 1 if self.by_input else 0  # the dimension that keeps its entries
        length = changed.transpose(0, across).flatten(1).norm(dim=1)
        least = torch.finfo(length.dtype).tiny
        factor: Tensor = self.magnitude.to(length) / length.clamp_min(least)
        return factor


@dataclass(frozen=True)
class Kronecker:
    """LoKr: a layer's weight W becomes W + strength · scale · (rows of w1 ⊗ w2)."""

    target: Target
    w1: Tensor
    w2: Tensor
    scale: float

    @property
    def layer(self) -> Layer:
        return self.target.layer

    @property
    def blocks(self) -> slice:
        """The rows of w1 that have a part in the layer's: of a fused layer's not all have."""
        height = self.w2.shape[0]
        return slice(self.target.start // height, -(-self.target.end // height))

    @property
    def rows(self) -> slice:
        """The layer's rows in the product of these with w2."""
        before = self.blocks.start * self.w2.shape[0]
        return slice(self.target.start - before, self.target.end - before)


Update = LowRank | Kronecker


def updates_of(
    tensors: Tensors, targets: tuple[Target, ...], usual_scale: Scale
) -> Iterator[Update]:
    """The updates of the layers that a file's layer stands for, in the order of its rows.

    Raises:
        ValueError: incomplete, of another shape, or of a kind that cannot be applied exactly.
    """
    if len({_inputs(target.layer) for target in targets}) > 1:
        raise ValueError("fused layers have different inputs")
    if not any(role.startswith("lokr_") for role in tensors):
        yield from _low_rank(tensors, targets, usual_scale)
    elif tensors.keys() & {"down", "up", "mid"}:
        raise ValueError("both LoRA and LoKr")
    elif tensors.keys() & {"dora_scale", "magnitude"}:
        raise ValueError("DoRA is not supported for LoKr")
    else:
        yield from _kronecker(tensors, targets)


def same_change(one: Update, other: Update) -> bool:
    """Whether two LoRAs of a layer change it alike, but for what rounding makes of a scale."""
    if not (isinstance(one, LowRank) and isinstance(other, LowRank)):
        return False
    if one.magnitude is not None or other.magnitude is not None:
        return False
    changes = [
        u.scale * (u.up.float().flatten(1) @ u.down.float().flatten(1)) for u in (one, other)
    ]
    return bool((changes[0] - changes[1]).abs().max() <= ROUNDING * changes[0].abs().max())


def _low_rank(
    tensors: Tensors, targets: tuple[Target, ...], usual_scale: Scale
) -> Iterator[LowRank]:
    layer, rows = targets[0].layer, targets[-1].end
    down, up = _needed(tensors, "down", "lora_A"), _needed(tensors, "up", "lora_B")
    rank = down.shape[0]
    if rank == 0 or up.dim() < 2 or up.shape[1] != rank or prod(up.shape[2:]) != 1:
        raise ValueError(f"factors of {_shape(down)} and {_shape(up)} do not go together")
    alpha = _alpha(tensors)
    scale = usual_scale(layer, rank) if alpha is None else alpha / rank
    up = up.reshape(up.shape[0], rank)
    if "mid" in tensors:
        down = _with_middle(down, tensors["mid"])
    down = _of_layer(down, layer)
    _check_rows(up.shape[0], rows)
    magnitude, by_input = _magnitude(tensors, targets)
    for target in targets:
        part_down, part_up = down, _rows(up, target)
        if len(targets) > 1:
            part_down, part_up = _without_zeros(part_down, part_up)
        if isinstance(layer.module, nn.Conv2d):
            part_up = part_up[:, :, None, None]
        own = magnitude if magnitude is None or by_input else _rows(magnitude, target)
        yield LowRank(target.layer, part_down, part_up, scale, own, by_input)


def _kronecker(tensors: Tensors, targets: tuple[Target, ...]) -> Iterator[Kronecker]:
    w1, rank1 = _factor(tensors, "lokr_w1")
    w2, rank2 = _factor(tensors, "lokr_w2")
    layer = targets[0].layer
    if w1.dim() != 2 or w2.dim() < 2:
        raise ValueError(f"LoKr factors of {_shape(w1)} and {_shape(w2)} do not go together")
    _check_rows(w1.shape[0] * w2.shape[0], targets[-1].end)
    inputs = _inputs(layer)
    if rank2 is not None and prod(inputs[1:]) > 1 and w2.shape[1] % prod(inputs[1:]) == 0:
        # LyCORIS unrolls a convolution's kernel into the columns of the last factor.
        w2 = w2.reshape(len(w2), -1, *inputs[1:])
    kernel = tuple(w2.shape[2:])
    if w1.shape[1] * w2.shape[1] != inputs[0] or not _same_kernel(kernel, inputs[1:]):
        raise ValueError(f"LoKr factors of {_shape(w1)} and {_shape(w2)} for {_of(layer)}")
    w2 = w2.reshape(*w2.shape[:2], *inputs[1:])
    # Whole factors have no rank, and then alpha means nothing.
    alpha, rank = _alpha(tensors), rank2 or rank1
    scale = alpha / rank if alpha is not None and rank else 1.0
    for target in targets:
        yield Kronecker(target, w1, w2, scale)


def _factor(tensors: Tensors, name: Role) -> tuple[Tensor, int | None]:
    """One side of the product, whole, and its rank if it came in two factors."""
    a, b = tensors.get(f"{name}_a"), tensors.get(f"{name}_b")  # type: ignore[call-overload]
    if name in tensors:
        if a is not None or b is not None:
            raise ValueError(f"{name} both whole and in factors")
        return tensors[name], None
    if a is None or b is None:
        raise ValueError(f"{name} is missing, or a factor of it")
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"{name}: factors of {_shape(a)} and {_shape(b)} do not go together")
    return a.float() @ b.float(), b.shape[0]


def _needed(tensors: Tensors, role: Role, spelling: str) -> Tensor:
    if role not in tensors:
        raise ValueError(f"its {spelling} is missing")
    return tensors[role]


def _alpha(tensors: Tensors) -> float | None:
    if "alpha" not in tensors:
        return None
    if tensors["alpha"].numel() != 1:
        raise ValueError(f"alpha has {tensors['alpha'].numel()} numbers, expected 1")
    return float(tensors["alpha"])


def _with_middle(down: Tensor, mid: Tensor) -> Tensor:
    """The two inner factors of a convolution in CP form, as one of the layer's kernel size."""
    if mid.dim() != 4 or mid.shape[1] != down.shape[0] or prod(down.shape[2:]) != 1:
        raise ValueError(f"lora_mid of {_shape(mid)} does not go with {_shape(down)}")
    flat = down.reshape(down.shape[:2]).float()
    return torch.einsum("nmkl,mj->njkl", mid.float(), flat)


def _of_layer(down: Tensor, layer: Layer) -> Tensor:
    """Shape a factor as PEFT wants it: kernels of one pixel may be written or left out."""
    inputs = _inputs(layer)
    if tuple(down.shape[1:2]) != inputs[:1] or not _same_kernel(tuple(down.shape[2:]), inputs[1:]):
        raise ValueError(f"lora_A of {_shape(down)} for {_of(layer)}")
    return down.reshape(down.shape[0], *inputs)


def _same_kernel(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return given == wanted or prod(given) == prod(wanted) == 1


def _inputs(layer: Layer) -> tuple[int, ...]:
    """A row of the layer's weight: inputs, and the kernel's size of a convolution."""
    if isinstance(layer.module, nn.Conv2d) and layer.module.groups != 1:
        raise ValueError("LoRA is not supported for grouped convolutions")
    return layer.shape[1:]


def _check_rows(given: int, expected: int) -> None:
    if given != expected:
        raise ValueError(f"has {given} outputs, the model {expected}")


def _rows(tensor: Tensor, target: Target) -> Tensor:
    """The target's share of the rows of a file's layer."""
    rows = tensor[target.start : target.end]
    if not target.swapped:
        return rows
    half = len(rows) // 2
    return torch.cat([rows[half:], rows[:half]])


def _without_zeros(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Drop ranks whose rows are all zeros.

    Some files have three LoRAs side by side in a fused one, each with zeros for the others.
    """
    used = up.ne(0).any(dim=0)
    if bool(used.all()) or not bool(used.any()):
        return down, up
    return down[used], up[:, used]


def _magnitude(tensors: Tensors, targets: tuple[Target, ...]) -> tuple[Tensor | None, bool]:
    """DoRA's magnitudes as one row of numbers, and whether they are of columns.

    PEFT's are of rows. LyCORIS writes [rows, 1] or, by default in its older versions, [1, columns].
    """
    rows, columns = targets[-1].end, _inputs(targets[0].layer)[0]
    if {"dora_scale", "magnitude"} <= tensors.keys():
        raise ValueError("two magnitudes")
    if "magnitude" in tensors:
        found = tensors["magnitude"]
        if found.numel() != rows:
            raise ValueError(f"magnitude of {_shape(found)} for {rows} outputs")
        return found.reshape(rows), False
    if "dora_scale" not in tensors:
        return None, False
    found = tensors["dora_scale"]
    if found.numel() == rows and found.shape[:1] == (rows,):
        return found.reshape(rows), False
    if found.numel() != columns or found.dim() < 2 or found.shape[:2] != (1, columns):
        raise ValueError(f"dora_scale of {_shape(found)} for {_of(targets[0].layer)}")
    if len(targets) > 1:
        raise ValueError("DoRA by inputs is not supported for fused layers")
    return found.reshape(columns), True


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _of(layer: Layer) -> str:
    return f"a layer of {list(layer.shape)}"
