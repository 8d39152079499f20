"""What a checkpoint's own files say of it before anything is loaded: parts, sizes, settings."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from core.checkpoints.single_file import GGUF, OF_AUTOENCODERS, OF_TEXT_ENCODERS
from core.checkpoints.weights import Tensor, Weights, tensors_of, weight_files
from core.index_files import MODEL_INDEX, PIPELINE_INDEX
from core.memory_modes import part_of

Kind = Literal["denoiser", "text", "vae", "judge", "other"]

MAX_JSON_BYTES = 50_000_000  # of an index or a header; the largest have some MB


@dataclass(frozen=True)
class Component:
    """One part of a model, with the settings that its own config file has."""

    name: str
    kind: Kind
    weights: Weights
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_quantised(self) -> bool:
        """Whether the files hold quantised weights, which every memory mode loads as they are."""
        return "quantization_config" in self.config


@dataclass(frozen=True)
class Checkpoint:
    """A whole model; `pipeline` is the class that loads it, as its index names it."""

    pipeline: str
    components: tuple[Component, ...]

    def of_kind(self, kind: Kind) -> list[Component]:
        return [c for c in self.components if c.kind == kind]

    @property
    def as_stored(self) -> int:
        """Bytes of all weights in the files."""
        return sum(c.weights.as_stored + c.weights.fixed for c in self.components)


def component_of(
    name: str, class_name: str, tensors: Iterable[Tensor], config: Mapping[str, Any] | None = None
) -> Component:
    """A component of a pipeline, by the name and class that its index gives."""
    weights = Weights.of(tensors, part_of(name, class_name))
    return Component(name, kind_of(name), weights, config or {})


def kind_of(component: str) -> Kind:
    """What a component of a pipeline is for, by diffusers' names."""
    if component.startswith(("transformer", "unet", "prior", "decoder")):
        return "denoiser"
    if component.startswith("text_encoder"):
        return "text"
    if component.startswith(("vae", "vqvae", "movq", "vqgan")):
        return "vae"
    return "other"


def checkpoint_of_files(
    files: Mapping[str, Sequence[Path]],
    pipeline: str = "",
    classes: Mapping[str, str] | None = None,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Checkpoint:
    """A pipeline's checkpoint from safetensors files by component.

    Args:
        classes: of the components, as far as they are known.
        configs: of the components, likewise.

    Raises:
        OSError, ValueError: a file cannot be read, or is no safetensors file.
    """
    components = []
    for name, of_component in files.items():
        tensors = (tensor for file in of_component for tensor in tensors_of(file))
        class_name, config = (classes or {}).get(name, ""), (configs or {}).get(name)
        components.append(component_of(name, class_name, tensors, config))
    return Checkpoint(pipeline, tuple(components))


def checkpoint_of_folder(folder: Path, variant: str | None = None) -> Checkpoint | None:
    """The checkpoint in a folder of diffusers or transformers; None where it cannot be read.

    Whoever loads it says why in more words.
    """
    try:
        if os.path.isfile(folder / PIPELINE_INDEX):
            return _pipeline_of(folder, variant)
        config = _read_json(folder / MODEL_INDEX)
        tensors = [t for file in weight_files(folder, variant) for t in tensors_of(file)]
        return judge_checkpoint(config, tensors) if tensors else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def with_denoiser(base: Checkpoint, file: Path) -> Checkpoint | None:
    """A base model's checkpoint with what one file has; None where that cannot be read."""
    denoisers = base.of_kind("denoiser")
    if not denoisers:
        return None
    try:
        own = _denoiser_in(file, denoisers[0])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    others = tuple(own if c is denoisers[0] else c for c in base.components)
    return Checkpoint(base.pipeline, others)


def _denoiser_in(file: Path, like: Component) -> Component:
    if file.suffix.lower() == GGUF:  # stays as it is, and is computed with layer by layer
        weights = replace(like.weights, as_stored=file.stat().st_size, fixed=0)
        config = {**like.config, "quantization_config": {"quant_method": "gguf"}}
        return replace(like, weights=weights, config=config)
    tensors = list(tensors_of(file))
    if any(tensor.name.startswith(OF_TEXT_ENCODERS + OF_AUTOENCODERS) for tensor in tensors):
        return like  # a whole checkpoint, of the family of its base model
    return replace(like, weights=Weights.of(tensors, "denoiser"))


def judge_checkpoint(config: Mapping[str, Any], tensors: Iterable[Tensor]) -> Checkpoint:
    """The checkpoint of a model of transformers, which is one component."""
    name = next(iter(config.get("architectures") or ()), "")
    weights = Weights.of(tensors, "encoder")
    return Checkpoint(str(name), (Component("model", "judge", weights, config),))


def _pipeline_of(folder: Path, variant: str | None) -> Checkpoint | None:
    index = _read_json(folder / PIPELINE_INDEX)
    classes = parts_of(index)
    files = {name: weight_files(folder / name, variant) for name in classes}
    if not is_whole(files):
        return None
    files = {name: of_component for name, of_component in files.items() if of_component}
    configs = {name: _config_of(folder / name) for name in files}
    pipeline = str(index.get("_class_name", ""))
    return checkpoint_of_files(files, pipeline, classes, configs)


def is_whole(files: Mapping[str, Sequence[Any]]) -> bool:
    """Whether all components that a pipeline needs have weights in a format that can be read."""
    needed = {name: bool(of_component) for name, of_component in files.items()}
    return any(kind_of(name) == "denoiser" for name in needed) and all(
        there for name, there in needed.items() if kind_of(name) != "other"
    )


def parts_of(index: Mapping[str, Any]) -> dict[str, str]:
    """Components that a pipeline's index names, and their classes; some have no weights."""
    return {
        name: value[1]
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)
    }


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        return _read_json(folder / "config.json")
    except FileNotFoundError:
        return {}


def _read_json(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{file} is too large for what it should be")
    content = json.loads(file.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no object")
    return content
