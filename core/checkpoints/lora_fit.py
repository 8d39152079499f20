"""Whether a LoRA can be of a model, from the headers of both files; nothing is loaded.

Trainers call layers by many names, which the worker knows (`workers.lora_targets`). How many inputs
a layer has does not depend on its name: what a LoRA puts on a layer has as many as the layer.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.checkpoints.lora_names import take_apart
from core.checkpoints.safetensors_header import NotSafetensors, read_header
from core.checkpoints.weights import FLOATS, Tensor, tensors_in, tensors_of

MAX_CONFIG_BYTES = 1_000_000


@dataclass(frozen=True)
class LoraFit:
    """What the shapes of a LoRA's layers say.

    Attributes:
        layers: that it changes.
        foreign: of them those with a number of inputs that no layer of the model has; -1 where
            the model's layers are not known.
        example: the name of one of these, with its number of inputs.
    """

    layers: int
    foreign: int = -1
    example: str = ""

    @property
    def problem(self) -> str | None:
        """Why it cannot be of the model; None where it may be."""
        if self.foreign <= 0:
            return None
        return (
            f"{self.foreign} of its {self.layers} layers have a width that no layer of the model "
            f"has, such as {self.example}; it was made for another model"
        )


def fit_of(lora: Path, widths: frozenset[int] | None) -> LoraFit:
    """Compare a LoRA with a model's layers.

    Args:
        widths: numbers of inputs of the model's layers; None where they are not known.

    Raises:
        OSError, NotSafetensors: the file cannot be read, or is none.
    """
    header, _ = read_header(lora, lora.stat().st_size)
    downs: dict[str, int] = {}
    modules = set()
    for tensor in tensors_in(header):
        found = take_apart(tensor.name)
        if found.role is None:
            continue
        modules.add(found.module)
        if found.role == "down" and len(tensor.shape) >= 2:
            downs[found.module] = tensor.shape[1]
    if widths is None:
        return LoraFit(len(modules))
    foreign = {module: inputs for module, inputs in downs.items() if inputs not in widths}
    example = next((f"{name[:60]} ({inputs} inputs)" for name, inputs in foreign.items()), "")
    return LoraFit(len(modules), len(foreign), example)


def widths_in(places: Iterable[Path]) -> frozenset[int] | None:
    """Numbers of inputs of the layers of a model that lies in several places."""
    found = [widths_of(place) for place in places]
    if any(widths is None for widths in found):
        return None
    return frozenset().union(*(widths for widths in found if widths is not None))


def widths_of(model: Path) -> frozenset[int] | None:
    """Numbers of inputs of a model's layers.

    Args:
        model: a folder of diffusers, or one file.

    Returns:
        None where they cannot be told: weights in fewer bits are stored in other shapes.
    """
    try:
        if model.is_file():
            tensors = list(tensors_of(model))
            return None if any(map(_is_packed, tensors)) else _inputs(tensors)
        found: set[int] = set()
        for place in sorted(model.iterdir()):
            # What is put on a VAE, or on what sees pictures, is no LoRA of these pipelines.
            if not place.is_dir() or not place.name.startswith(
                ("transformer", "unet", "text_encoder", "prior", "decoder")
            ):
                continue
            if "quantization_config" in _config(place):
                return None
            files = [f for f in sorted(place.iterdir()) if f.name.endswith(".safetensors")]
            if not files and any(f.suffix == ".bin" for f in place.iterdir()):
                return None
            for file in files:
                found |= _inputs(tensors_of(file))
        return frozenset(found) or None
    except (OSError, ValueError, NotSafetensors, KeyError, TypeError):
        return None


def _is_packed(tensor: Tensor) -> bool:
    """Whether it holds weights in fewer bits; places of tokens, as CLIP counts them, are none."""
    is_weight = "weight" in tensor.name.rpartition(".")[2]
    return is_weight and len(tensor.shape) == 2 and tensor.dtype not in FLOATS


def _inputs(tensors: Iterable[Tensor]) -> frozenset[int]:
    return frozenset(t.shape[1] for t in tensors if len(t.shape) >= 2)


def _config(folder: Path) -> Mapping[str, object]:
    file = folder / "config.json"
    if not os.path.isfile(file) or file.stat().st_size > MAX_CONFIG_BYTES:
        return {}
    found = json.loads(file.read_text("utf-8"))
    return found if isinstance(found, dict) else {}
