"""The heads of a reward model, which transformers leaves out: read from its files of weights.

EditReward (TIGER-AI-Lab/EditReward) has `rm_heads.head_0.…` and `rm_heads.head_1.…`, others of its
kind one `rm_head.…`: linear layers with ReLU between them. The first of a head's outputs is the
reward; a second one is the logarithm of its standard deviation.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from core.errors import InputError

_LAYER = re.compile(
    r"(?:.*\.)?rm_(?:heads\.head_(?P<head>\d+)|head)(?:\.(?P<layer>\d+))?\.(?P<kind>weight|bias)"
)
_PICKLES = (".pth", ".pt", ".bin")
_EMBEDDING = re.compile(r"(?:.*\.)?embed_tokens\.weight")


def heads_in(folder: Path) -> list[nn.Module]:
    """The heads in a model's folder, in float32 and in their order.

    Raises:
        InputError: there are none, or they do not fit together.
    """
    layers: dict[int, dict[int, dict[str, torch.Tensor]]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118 - it is no mapping
                if found := _LAYER.fullmatch(key):
                    head, layer = int(found["head"] or 0), int(found["layer"] or 0)
                    tensor = weights.get_tensor(key).float()
                    layers.setdefault(head, {}).setdefault(layer, {})[found["kind"]] = tensor
    pickles = sorted(file.name for end in _PICKLES for file in folder.glob(f"*{end}"))
    if not layers and pickles and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"judge.model: {folder} has its weights in {pickles[0]}, a pickle, which can run code "
            "and is not read. Save the tensors of one that you trust as model.safetensors there "
            "(safetensors.torch.save_file)."
        )
    if not layers or sorted(layers) != list(range(len(layers))):
        raise InputError(
            f"judge.model: {folder} is no reward model: its weights have no heads rm_head or "
            "rm_heads.head_0, rm_heads.head_1, …"
        )
    return [_head(layers[number], folder) for number in sorted(layers)]


def _head(layers: Mapping[int, Mapping[str, torch.Tensor]], folder: Path) -> nn.Module:
    modules: list[nn.Module] = []
    width: int | None = None
    for _, weights in sorted(layers.items()):
        if "weight" not in weights or (width is not None and weights["weight"].shape[1] != width):
            raise InputError(f"judge.model: the layers of a head in {folder} do not fit together.")
        width, into = weights["weight"].shape
        linear = nn.Linear(into, width, bias="bias" in weights)
        linear.load_state_dict(dict(weights))
        modules += [nn.ReLU(), linear] if modules else [linear]
    return nn.Sequential(*modules)


def vocabulary_in(folder: Path) -> int | None:
    """Tokens that the model's weights know, one more than its base for the special token."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118
                if _EMBEDDING.fullmatch(key):
                    return int(weights.get_slice(key).get_shape()[0])
    return None
