"""Which layers of a pipeline a LoRA file's names mean.

Prefixes and spellings differ from trainer to trainer, and kohya's scripts write underscores for
dots. So names are compared without that difference, with every prefix that may be one taken
off: a name stands for what the model then has by it, and for nothing if that is not one layer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import nn

from workers.base_layers import shape_of
from workers.lora_aliases import Rows, aliases_of, knows

# In front of a denoiser's names, or of another prefix. Underscores stand for dots, too.
_DENOISER_PREFIXES = (
    "transformer", "diffusion_model", "model_diffusion_model", "unet", "model", "dit", "pipe_dit",
    "pipe_unet", "pipe_transformer", "lora_unet", "lora_transformer", "lora_prior_unet", "lora",
)  # fmt: skip
_WRAPPERS = ("base_model_model", "base_model", "lycoris", "module", "pipe")
_ENCODER_PREFIXES = {
    "text_encoder": ("lora_te", "lora_te1", "lora_text_encoder", "lora_text_encoder_1",
                     "text_encoder", "text_encoder_1", "text_encoders_clip_l_transformer",
                     "text_encoders", "clip_l", "conditioner_embedders_0_transformer"),
    "text_encoder_2": ("lora_te2", "lora_text_encoder_2", "text_encoder_2",
                       "text_encoders_clip_g_transformer", "text_encoders_t5xxl_transformer",
                       "clip_g", "t5xxl", "t5"),
    "text_encoder_3": ("lora_te3", "lora_text_encoder_3", "text_encoder_3"),
}  # fmt: skip
_LEVELS = re.compile(r"\.(processor|_orig_mod|_fsdp_wrapped_module)(?=\.)")
_PREFIXES: tuple[tuple[str, str | None], ...] = (
    *((wrapper, None) for wrapper in _WRAPPERS),
    *((prefix, "denoiser") for prefix in _DENOISER_PREFIXES),
    *((prefix, part) for part, prefixes in _ENCODER_PREFIXES.items() for prefix in prefixes),
)


@dataclass(frozen=True)
class Layer:
    """A layer of a pipeline that may have a LoRA."""

    part: str
    name: str
    module: nn.Linear | nn.Conv2d  # without the adapters around it

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the layer's weight."""
        return shape_of(self.module)

    @property
    def rows(self) -> int:
        """The number of outputs."""
        return self.shape[0]


@dataclass(frozen=True)
class Target:
    """A layer, and where its rows are in the file's layer.

    Attributes:
        swapped: the file has the second half of its rows first.
    """

    layer: Layer
    start: int
    swapped: bool

    @property
    def end(self) -> int:
        return self.start + self.layer.rows


class Targets:
    """The layers of one pipeline by every name that files may give them."""

    def __init__(self, pipeline: Any) -> None:
        names = getattr(pipeline, "_lora_loadable_modules", [])
        self._parts = {n: p for n in names if (p := getattr(pipeline, n, None)) is not None}
        self._denoisers = [name for name in self._parts if not name.startswith("text_encoder")]
        self._index: dict[str, dict[str, tuple[Target, ...]]] = {}
        for part, model in self._parts.items():
            layers = {name: Layer(part, name, module) for name, module in _layers_of(model)}
            index = {_flat(name): _in_turn((Rows(name),), layers) for name in layers}
            for alias, rows in aliases_of(model, layers):
                if all(row.layer in layers for row in rows):
                    index.setdefault(_flat(alias), _in_turn(rows, layers))
            self._index[part] = index

    @property
    def take_words(self) -> bool:
        """Whether a text encoder of the pipeline takes LoRAs."""
        return len(self._denoisers) < len(self._parts)

    @property
    def all_names_known(self) -> bool:
        """Whether `workers.lora_aliases` has whatever the denoiser's layers are called."""
        return all(knows(self._parts[name]) for name in self._denoisers)

    def find(self, name: str) -> tuple[Target, ...]:
        """The layers that a file means by `name`; empty for none, or if it may mean several."""
        found = {
            index[rest]
            for rest, part in _readings(_flat(name))
            for index in self._indices(part)
            if rest in index
        }
        return found.pop() if len(found) == 1 else ()

    def part_of(self, name: str) -> str | None:
        """The text encoder that a file means by `name`, whether or not there is one."""
        parts = {part for _, part in _readings(_flat(name))}
        return max((part for part in parts if part and part != "denoiser"), key=len, default=None)

    def _indices(self, part: str | None) -> Iterator[dict[str, tuple[Target, ...]]]:
        if part in self._index:
            yield self._index[part]
        elif part in (None, "denoiser"):
            yield from (self._index[denoiser] for denoiser in self._denoisers[:1])


def _layers_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Linear layers and convolutions, as if no adapter were on them."""
    for name, module in model.named_modules():
        base = getattr(module, "base_layer", None)
        if base is not None:
            yield name, base
        elif isinstance(module, nn.Linear | nn.Conv2d) and not _of_adapter(name):
            yield name, module


def _of_adapter(name: str) -> bool:
    return any(part in ("base_layer", "lora_A", "lora_B") for part in name.split("."))


def _in_turn(rows: tuple[Rows, ...], layers: dict[str, Layer]) -> tuple[Target, ...]:
    start, targets = 0, []
    for row in rows:
        targets.append(Target(layers[row.layer], start, row.swapped))
        start = targets[-1].end
    return tuple(targets)


def _flat(name: str) -> str:
    # torch.compile and FSDP leave levels of their own in a model's names; some files of FLUX have
    # an underscore too many at the end.
    return _LEVELS.sub("", f".{name}")[1:].replace(".", "_").rstrip("_")


@lru_cache(maxsize=8192)
def _readings(flat: str) -> frozenset[tuple[str, str | None]]:
    """The name without each prefix that it may have, and the part that this prefix means."""
    found: set[tuple[str, str | None]] = set()
    waiting: list[tuple[str, str | None]] = [(flat, None)]
    while waiting:
        rest, part = waiting.pop()
        if (rest, part) in found:
            continue
        found.add((rest, part))
        for prefix, meant in _PREFIXES:
            if rest.startswith(f"{prefix}_") and (part is None or meant in (None, part)):
                waiting.append((rest.removeprefix(f"{prefix}_"), meant or part))
    return frozenset(found)
