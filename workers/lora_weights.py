"""Turns the tensors of a LoRA file into what each layer of a pipeline gets, or says why not.

Every tensor is accounted for: it is in an update, or meant for a text encoder of a pipeline whose
text encoders take no LoRA, or the whole file is refused. Nothing here changes the pipeline.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from torch import Tensor

from core.checkpoints.lora_names import Role, is_added, take_apart, unsupported_method
from workers.lora_targets import Layer, Targets
from workers.lora_updates import LowRank, Update, same_change, updates_of

SHOWN = 3  # names in a message
LONGEST_SHOWN = 200  # characters of one
FP8_BYTES = 1
SETTINGS = "lora_adapter_metadata"  # where diffusers keeps PEFT's settings in a file


@dataclass
class LoraWeights:
    """A file's updates, one of each layer.

    Attributes:
        left_out: tensors for text encoders where these take no LoRA.
    """

    updates: list[Update] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """The largest rank of the updates."""
        return max((u.down.shape[0] for u in self.updates if isinstance(u, LowRank)), default=1)


@dataclass
class _Module:
    """One layer of a file: its tensors by role, and their names."""

    tensors: dict[Role, Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def weights_for(
    state: Mapping[str, Tensor], metadata: Mapping[str, str], targets: Targets
) -> LoraWeights:
    """What a file's tensors are for the pipeline of `targets`.

    Raises:
        ValueError: not all of it can be applied exactly; says what and why.
    """
    # ComfyUI writes differences of biases and norms that nobody trained.
    state = {n: t for n, t in state.items() if not is_added(n) or bool(_wide(t).any())}
    method = unsupported_method(state)
    if method:
        names = [name for name in state if take_apart(name).method == method]
        raise ValueError(f"{method} is not supported: {first_of(names)}")
    modules, strange = _by_module(state)
    if strange:
        raise ValueError(
            f"{len(strange)} of {len(state)} tensors are none of a LoRA: {first_of(strange)}"
        )
    _check_numbers(state)
    return _updates(modules, _settings_in(metadata), targets)


def side_by_side(files: Sequence[LoraWeights], strengths: Sequence[float]) -> LoraWeights:
    """One LoRA that changes each layer as these plain ones do together.

    [up · up'] times [down over down'] is the sum of both products.
    """
    by_layer: dict[Layer, list[tuple[LowRank, float]]] = {}
    for weights, strength in zip(files, strengths, strict=True):
        for update in weights.updates:
            assert isinstance(update, LowRank)
            by_layer.setdefault(update.layer, []).append((update, strength))
    return LoraWeights(
        [
            LowRank(
                layer,
                torch.cat([update.down.float() for update, _ in found]),
                torch.cat([update.up.float() * (update.scale * s) for update, s in found], dim=1),
                scale=1.0,
            )
            for layer, found in by_layer.items()
        ]
    )


def _updates(
    modules: Mapping[str, _Module], settings: "_Settings", targets: Targets
) -> LoraWeights:
    weights, problems = LoraWeights(), dict[str, str]()
    taken: dict[Layer, tuple[str, Update]] = {}
    for name, module in modules.items():
        found = targets.find(name)
        if not found and targets.part_of(name) and not targets.take_words:
            weights.left_out += module.names
            continue
        try:
            if not found:
                raise ValueError("no layer of the model")
            for update in updates_of(module.tensors, found, settings.scale):
                other, known = taken.setdefault(update.layer, (name, update))
                if known is update:
                    weights.updates.append(update)
                # Some files have fused projections and their parts, which say the same.
                elif not same_change(known, update):
                    raise ValueError(f"the same layer as {other[:LONGEST_SHOWN]}")
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        reasons = [f"{name[:LONGEST_SHOWN]} ({why})" for name, why in problems.items()]
        raise ValueError(
            f"{len(problems)} of {len(modules)} modules cannot be applied: {first_of(reasons)}"
        )
    if not weights.updates:
        raise ValueError("none of its tensors belongs to this model")
    return weights


def _by_module(state: Mapping[str, Tensor]) -> tuple[dict[str, _Module], list[str]]:
    """The tensors by layer, and the names of those that are none of a LoRA."""
    modules: dict[str, _Module] = {}
    strange: list[str] = []
    for name, tensor in state.items():
        found = take_apart(name)
        if found.role is None:
            strange.append(name)
            continue
        module = modules.setdefault(found.module, _Module())
        if found.role in module.tensors:
            raise ValueError(f"two tensors say the same: {first_of([*module.names, name][-2:])}")
        module.tensors[found.role] = _wide(tensor)
        module.names.append(name)
    return modules, strange


def _check_numbers(state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if not tensor.is_floating_point() and tensor.numel() > 1:  # an alpha may be an integer
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{name[:LONGEST_SHOWN]} holds {kind}, expected floating point")
    bad = [name for name, tensor in state.items() if not bool(_wide(tensor).isfinite().all())]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(state)} tensors hold NaN or infinite numbers: {first_of(bad)}"
        )


def _wide(tensor: Tensor) -> Tensor:
    """Convert to a type that can be calculated with: bfloat16 holds every number of fp8."""
    if tensor.is_floating_point() and tensor.element_size() == FP8_BYTES:
        return tensor.to(torch.bfloat16)
    return tensor


def first_of(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    shown = ", ".join(name[: 2 * LONGEST_SHOWN] for name in names[:SHOWN])
    return f"{shown}, …" if len(names) > SHOWN else shown


def _settings_in(metadata: Mapping[str, str]) -> "_Settings":
    try:
        found = json.loads(metadata.get(SETTINGS, "{}"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("PEFT's settings of it are no JSON object")
    for name, kind in found.items():
        # PEFT's others have alpha under other names, and arithmetic of their own.
        if name.rpartition(".")[2] == "peft_type" and kind != "LORA":
            raise ValueError(f"PEFT's {str(kind)[:LONGEST_SHOWN]} is not supported")
    return _Settings(found)


class _Settings:
    """PEFT's settings of an adapter, which diffusers saves beside its tensors."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def scale(self, layer: Layer, rank: int) -> float:
        """alpha / rank of a layer whose alpha is no tensor: 1 unless the settings say otherwise."""
        alpha = self._get(layer, "lora_alpha", rank)
        patterns = self._get(layer, "alpha_pattern", {})
        if isinstance(patterns, dict):
            alpha = patterns.get(get_pattern_key(list(patterns), layer.name), alpha)
        if type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise ValueError(f"lora_alpha is {str(alpha)[:LONGEST_SHOWN]}, expected a number")
        by_root = self._get(layer, "use_rslora", False) is True
        return float(alpha) / (math.sqrt(rank) if by_root else rank)

    def _get(self, layer: Layer, name: str, default: Any) -> Any:
        """A setting of the layer's part, or of an adapter that was saved for one part alone."""
        found = self._settings.get(f"{layer.part}.{name}", self._settings.get(name))
        return default if found is None else found
