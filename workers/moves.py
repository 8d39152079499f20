"""Moves tensors between the GPUs of a worker, to where a part or a block computes and back.

accelerate's hooks do that, too, but on every layer, and diffusers' LoRA loader takes them for
offloading, and puts the model on the CPU.
"""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from workers.placement import HOME, Place


def connect(model: nn.Module, at: Place, devices: Sequence[torch.device]) -> None:
    """Make a model that was placed take its inputs, and give its results, at home."""
    home = devices[HOME]
    # What lies per layer, such as a cache of keys and values, stays with its layer.
    alone = {*_names(model, "_skip_keys"), *_names(model, "_skip_keys_device_placement")}
    if at.gpu != HOME:
        _moved_before(model, devices[at.gpu], alone)
    if at.gpu != HOME or at.is_split:
        _moved_after(model, home)
    if not at.is_split:
        return
    last: dict[str, str] = {}  # block of each list
    for name, gpu in at.blocks.items():
        _moved_before(model.get_submodule(name), devices[gpu], alone)
        last[name.rpartition(".")[0]] = name
    for name in last.values():
        _moved_after(model.get_submodule(name), home)


def compute_at_home(pipeline: Any, home: torch.device) -> None:
    """Make a pipeline create its own tensors on the device `home`.

    diffusers takes the device of the part whose name comes first, such as a text encoder's.
    """
    kind = type(pipeline)

    class AtHome(kind):  # type: ignore[valid-type, misc]
        device = _execution_device = property(lambda self: home)

    AtHome.__name__, AtHome.__module__ = kind.__name__, kind.__module__
    pipeline.__class__ = AtHome


def _names(model: nn.Module, attribute: str) -> list[str]:
    names = getattr(model, attribute, None) or []
    return [names] if isinstance(names, str) else list(names)


def _moved_before(module: nn.Module, device: torch.device, alone: set[str]) -> None:
    def move(
        _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        moved = {k: v if k in alone else send_to_device(v, device) for k, v in given.items()}
        return send_to_device(args, device), moved

    module.register_forward_pre_hook(move, with_kwargs=True)


def _moved_after(module: nn.Module, device: torch.device) -> None:
    def move(_: nn.Module, __: Any, result: Any) -> Any:
        return send_to_device(result, device)

    module.register_forward_hook(move)
