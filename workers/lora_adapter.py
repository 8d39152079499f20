"""Puts a LoRA's updates onto a pipeline through diffusers and PEFT, and checks that they are on.

diffusers gets its own names and factors alone, so that none of its converters finds work. Whatever
alpha says is set on PEFT's layers afterwards.
"""

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from core.checkpoints.lora_files import PEFT_SETTINGS, settings_beside
from core.checkpoints.lora_names import take_apart
from core.lora_paths import PEFT_FILE, file_or_folder
from workers.base_layers import Places, numbers_of
from workers.errors import blames_no_file
from workers.lora_targets import Layer, Targets
from workers.lora_updates import LowRank, Update
from workers.lora_variants import is_plain, variant_for
from workers.lora_weights import SETTINGS, LoraWeights, first_of, weights_for

# What libraries warn of although it is meant: several adapters, one taken off, a part of the
# pipeline that a file leaves alone, an exchange that needs a slot of its own. And what is not so:
# transformers misses a text encoder's other adapters in the new one's file, PEFT layers whose
# names end alike, and both leave them as they are. What is on the model is checked here.
_USUAL = re.compile(
    "Already found a `peft_config` attribute|Adapter .* was active which is now deleted"
    "|No LoRA keys associated to|(Hotswapping|Loading) .* was unsuccessful|.* LOAD REPORT"
    "|While injecting the PEFT adapters, an inconsistency was discovered"
)
_LOGGERS = (
    *("diffusers.loaders.peft", "diffusers.loaders.lora_base"),
    *("transformers.integrations.peft", "transformers.utils.loading_report"),
)

_OF_DENOISER = ("lora_A", "lora_B")
_OF_TEXT_ENCODER = ("lora_linear_layer.down", "lora_linear_layer.up")

Key = tuple[str, str]  # a part of the pipeline, and the name of a layer in it


class PeftLoader:
    """`workers.lora_manager.LoraLoader` for diffusers' pipelines."""

    def __init__(self, pipeline: Any, log: Callable[[str, str], None]) -> None:
        self._pipeline = pipeline
        self._reader = LoraReader(pipeline, log)

    def read(self, path: Path) -> "_PeftFile":
        state = load_file(path)
        if self._pipeline.device.type != "cuda":  # elsewhere they are copied anyway
            state = off_the_file(state)
        return _PeftFile(self._pipeline, self._reader.understand(path, state))

    def remove(self, name: str) -> None:
        take_off(self._pipeline, name)


class _PeftFile:
    def __init__(self, pipeline: Any, weights: LoraWeights) -> None:
        self._pipeline, self._weights = pipeline, weights

    def put_on(self, name: str) -> None:
        put_on(self._pipeline, self._weights, name)


class LoraReader:
    """Knows a pipeline's layers, and says once of each file what is left out of it."""

    def __init__(self, pipeline: Any, log: Callable[[str, str], None]) -> None:
        self._pipeline, self._log = pipeline, log
        self._told: set[str] = set()

    @cached_property
    def _targets(self) -> Targets:
        return Targets(self._pipeline)

    def understand(self, path: Path, state: Mapping[str, Tensor]) -> LoraWeights:
        """What the tensors of a file are for the pipeline. Raises ValueError."""
        metadata = metadata_of(path)
        try:
            weights = weights_for(state, metadata, self._targets)
        except ValueError:
            converted = None if self._targets.all_names_known else self._converted(state)
            if converted is None:
                raise
            weights = weights_for(converted, metadata, self._targets)
        if weights.left_out:
            self._warn(
                f"LoRA {file_or_folder(str(path))}: {len(weights.left_out)} of {len(state)} "
                f"tensors are for a text encoder, and {type(self._pipeline).__name__} takes LoRAs "
                f"for its denoiser alone: {first_of(weights.left_out)}"
            )
        alpha_is_told = SETTINGS in metadata or any(
            take_apart(name).role == "alpha" for name in state
        )
        if path.name == PEFT_FILE and not alpha_is_told:
            self._warn(
                f"LoRA {path}: {PEFT_SETTINGS} is not beside it, so alpha counts as equal to the "
                "rank"
            )
        return weights

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._log("WARNING", text)

    def _converted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The file in diffusers' names by its own converters, for models whose others are not ours.

        None where they cannot, or where not every number of the file is there afterwards: they
        pass over what they do not know. They only split rows and scale, so outputs are counted.
        """
        roles = {take_apart(name).role for name in state}
        if not roles <= {"down", "up", "alpha"}:
            return None
        try:
            converted, *alphas = _as_tuple(self._pipeline.lora_state_dict(dict(state)))
            converted |= {
                k: torch.tensor(float(v)) for k, v in (alphas[0] if alphas else {}).items()
            }
            return converted if _outputs(converted) == _outputs(state) else None
        except Exception as error:
            if blames_no_file(error):
                raise
            return None


def _as_tuple(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _outputs(state: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for name, t in state.items() if take_apart(name).role == "up")


def off_the_file(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors into memory of their own.

    On a CPU they are read as they are used: what is written to the file later would change them,
    and a file that is cut would kill the worker.
    """
    return {name: t.clone() if t.device.type == "cpu" else t for name, t in state.items()}


def metadata_of(path: Path) -> Mapping[str, str]:
    """The strings in a safetensors file's header; PEFT's settings, where it has these beside it."""
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata() or {})
    if settings := settings_beside(path):
        metadata.setdefault(SETTINGS, settings.decode("utf-8", "replace"))
    return metadata


def has_variants(weights: LoraWeights) -> bool:
    """Whether a layer has more than the two factors of a LoRA."""
    return not all(map(is_plain, weights.updates))


def put_on(
    pipeline: Any, weights: LoraWeights, name: str, rank: int | None = None, hotswap: bool = False
) -> list[tuple[Any, float]]:
    """Load as the adapter `name`; returns its PEFT layers with their scale at strength 1.

    Args:
        rank: fill every layer up to this with zeros.
        hotswap: exchange what is loaded under this name.

    Raises:
        ValueError: the pipeline does not have all of it afterwards.
    """
    factors = {_key(update.layer): _factors(update) for update in weights.updates}
    for part in {part for part, _ in factors}:
        # diffusers knows ranks that differ for denoisers alone.
        if rank is not None or part.startswith("text_encoder"):
            same = rank or max(d.shape[0] for (p, _), (d, _) in factors.items() if p == part)
            factors |= {k: _filled(*v, same) for k, v in factors.items() if k[0] == part}
    state: dict[str, Tensor] = {}
    for (part, layer), (down, up) in factors.items():
        # diffusers knows a text encoder's LoRA by its attention, or else by these names.
        ends = _OF_TEXT_ENCODER if part.startswith("text_encoder") else _OF_DENOISER
        for end, tensor in zip(ends, (down, up), strict=True):
            # They become the model's own, and the next LoRA is written into them: `weights` has to
            # stay as it is, and fused layers share a factor.
            state[f"{part}.{layer}.{end}.weight"] = tensor if rank is None else tensor.clone()
    with _usual_warnings_left_out():
        pipeline.load_lora_weights(
            state, adapter_name=name, **({"hotswap": True} if hotswap else {})
        )
    layers, places = layers_with(pipeline, name), Places(pipeline)
    _widen(places, layers, factors, name)
    _check(layers, factors, name, others_are_zero=hotswap)
    scales = []
    for update in weights.updates:
        layer, scale = layers[_key(update.layer)], update.scale
        variant = variant_for(update, places.of(update.layer.part, update.layer.module))
        if variant is not None:
            layer.lora_variant[name] = variant
            scale = 1.0  # the variant has its own
        layer.lora_alpha[name] = scale * layer.r[name]
        scales.append((layer, scale))
    return scales


def activate(pipeline: Any, names: list[str]) -> None:
    """Activate the adapters `names` together."""
    for name in names:
        for layer in layers_with(pipeline, name).values():
            layer.set_adapter([n for n in names if n in layer.lora_A], inference_mode=True)


def take_off(pipeline: Any, name: str) -> None:
    """Delete the adapter `name`."""
    for layer in layers_with(pipeline, name).values():
        layer.lora_variant.pop(name, None)
    with _usual_warnings_left_out():
        pipeline.delete_adapters(name)


def layers_with(pipeline: Any, name: str) -> dict[Key, Any]:
    """PEFT's layers that have the adapter `name`."""
    found = {}
    for part in pipeline._lora_loadable_modules:
        model = getattr(pipeline, part, None)
        for layer, module in model.named_modules() if model is not None else ():
            if name in getattr(module, "lora_A", ()):
                found[(part, layer)] = module
    return found


@contextmanager
def _usual_warnings_left_out() -> Iterator[None]:
    def unusual(record: logging.LogRecord) -> bool:
        return not _USUAL.match(record.getMessage())

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(unusual)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _USUAL.pattern)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(unusual)


def _widen(
    places: Places,
    layers: Mapping[Key, Any],
    factors: Mapping[Key, tuple[Tensor, Tensor]],
    name: str,
) -> None:
    """Bring factors into the type that layers compute in, where these are stored in 8-bit floats.

    PEFT gives an adapter the type of its layer's weight, and so rounds it.
    """
    for key, layer in layers.items():
        for factor, tensor in zip((layer.lora_A, layer.lora_B), factors.get(key, ()), strict=False):
            weight = factor[name].weight
            if weight.element_size() == 1 and weight.shape == tensor.shape:
                dtype = places.of(key[0], layer.get_base_layer()).dtype
                factor[name].weight.data = tensor.to(weight.device, dtype)


def _check(
    layers: Mapping[Key, Any],
    factors: Mapping[Key, tuple[Tensor, Tensor]],
    name: str,
    others_are_zero: bool,
) -> None:
    """Raises ValueError unless exactly these numbers are on exactly these layers."""
    wrong = [key for key, (down, up) in factors.items() if not _holds(layers, key, name, down, up)]
    extra = [
        key
        for key in layers.keys() - factors.keys()
        if not (others_are_zero and not numbers_of(layers[key].lora_B[name]).any())
    ]
    if wrong or extra:
        names = ", ".join(".".join(key) for key in (wrong or extra)[:3])
        count = f"{len(wrong)} of {len(factors)}" if wrong else f"{len(extra)} more"
        raise ValueError(f"{count} modules are not on the model as they are in the file: {names}")


def _holds(layers: Mapping[Key, Any], key: Key, name: str, down: Tensor, up: Tensor) -> bool:
    if key not in layers:
        return False
    for factor, tensor in ((layers[key].lora_A, down), (layers[key].lora_B, up)):
        weight = numbers_of(factor[name])
        if weight.is_meta or weight.shape != tensor.shape:
            return False
        if not torch.equal(weight, tensor.to(weight.device, weight.dtype)):
            return False
    return True


def _key(layer: Layer) -> Key:
    return layer.part, layer.name


def _factors(update: Update) -> tuple[Tensor, Tensor]:
    if isinstance(update, LowRank):
        return update.down.contiguous(), update.up.contiguous()
    # LoKr's own are in its variant; the layer below that needs some.
    outputs, *inputs = update.layer.shape
    return torch.zeros(1, *inputs), torch.zeros(outputs, 1, *[1] * (len(inputs) - 1))


def _filled(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors, filled with zeros up to a rank."""
    missing, kernel = rank - down.shape[0], [0, 0] * (down.dim() - 2)
    if missing == 0:
        return down, up
    return pad(down, [*kernel, 0, 0, 0, missing]), pad(up, [*kernel, 0, missing])
