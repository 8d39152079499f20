"""Loads one model onto several GPUs of one worker.

diffusers' own `device_map="balanced"` puts what fits into no single GPU on the CPU, and says so to
nobody. Here each part, or block of a part, goes from its file straight to the GPU that
`workers.placement` chose, and in the end nothing may be anywhere else. The arithmetic is that of
one GPU, and so are the pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.hooks import remove_hook_from_module
from diffusers import DiffusionPipeline
from huggingface_hub.constants import is_offline_mode
from torch import nn

from core.devices.memory_needs import GIB
from core.errors import InputError
from core.worker_spec import WorkerSpec
from workers.model_parts import classes_in, device_map, part_of, without_memory
from workers.models.base import Log
from workers.moves import compute_at_home, connect
from workers.placement import HOME, Place, place
from workers.torch_device import dtype_of, torch_devices

# Bytes beside the weights, by estimate: on each GPU what a picture of 1 MP takes in a block, and
# CUDA's libraries; at home also what decoding it takes, without tiles.
ROOM_TO_WORK = int(1.5 * GIB)
ROOM_TO_DECODE = int(2.5 * GIB)


@dataclass(frozen=True)
class Gpus:
    """A worker's GPUs. `free`: bytes on each."""

    devices: list[torch.device]
    free: list[int]

    @classmethod
    def of(cls, spec: WorkerSpec) -> "Gpus":
        devices = torch_devices(spec)
        return cls(devices, [torch.cuda.mem_get_info(device)[0] for device in devices])

    def rooms(self, decodes: bool) -> list[int]:
        """Bytes for weights on each GPU."""
        room = [free - ROOM_TO_WORK for free in self.free]
        room[HOME] -= ROOM_TO_DECODE if decodes else 0
        return room


def load_spread_pipeline(
    spec: WorkerSpec, ready: Mapping[str, Any], log: Log, gpus: Gpus | None = None
) -> Any:
    """A pipeline over all GPUs of a worker.

    Args:
        ready: parts that are loaded already, by name.
        gpus: by default those that the worker has.

    Raises:
        InputError: it does not fit, or may not be spread.
    """
    _check_memory(spec)
    gpus = gpus or Gpus.of(spec)
    folder, dtype = _folder_of(spec), dtype_of(spec, gpus.devices[HOME])
    classes = classes_in(folder)
    parts = [part_of(n, without_memory(kind, folder / n), dtype) for n, kind in classes.items()]
    places = place(parts, gpus.rooms(decodes=True))
    modules = {}
    for name, kind in classes.items():
        modules[name] = kind.from_pretrained(
            folder / name,
            dtype=dtype,
            variant=_variant_in(folder / name, spec.variant),
            use_safetensors=True,
            device_map=device_map(places[name], gpus.devices),
        )
        _connect(modules[name], places[name], gpus)
    pipeline = DiffusionPipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, **modules, **ready
    )
    loaded = {k: v for k, v in pipeline.components.items() if isinstance(v, nn.Module)}
    for name in loaded.keys() - modules.keys():  # of classes that diffusers alone knows
        loaded[name].to(gpus.devices[HOME])
    check_places(loaded, gpus.devices)
    compute_at_home(pipeline, gpus.devices[HOME])
    log("INFO", f"spread over {len(gpus.devices)} GPUs: {told(places)}")
    return pipeline


def load_spread_model(
    spec: WorkerSpec, kind: Any, log: Log, gpus: Gpus | None = None, **more: Any
) -> Any:
    """A judge's model over all GPUs of a worker.

    Args:
        kind: the class of transformers that loads it.
        gpus: by default those that the worker has.
        more: arguments of its `from_pretrained`.

    Raises:
        InputError: it does not fit, or may not be spread.
    """
    _check_memory(spec)
    gpus = gpus or Gpus.of(spec)
    dtype = dtype_of(spec, gpus.devices[HOME])
    part = part_of("the judge", without_memory(kind, spec.model, spec.revision), dtype)
    room = gpus.rooms(decodes=False)
    # Where one GPU is enough, nothing needs to be moved.
    places = {part.name: Place(HOME)} if part.size <= room[HOME] else place([part], room)
    model = kind.from_pretrained(
        spec.model,
        revision=spec.revision,
        variant=spec.variant,
        dtype=dtype,
        use_safetensors=True,
        device_map=device_map(places[part.name], gpus.devices),
        **more,
    )
    _connect(model, places[part.name], gpus)
    check_places({part.name: model}, gpus.devices)
    log("INFO", f"spread over {len(gpus.devices)} GPUs: {told(places)}")
    return model


def check_places(parts: Mapping[str, nn.Module], devices: list[torch.device]) -> None:
    """Raises InputError if a tensor of a part is on none of the GPUs: it would be so again."""
    for name, part in parts.items():
        tensors = [*part.named_parameters(), *part.named_buffers()]
        astray = [(at, tensor) for at, tensor in tensors if tensor.device not in devices]
        if astray:
            size = sum(tensor.numel() * tensor.element_size() for _, tensor in astray)
            first, tensor = astray[0]
            raise InputError(
                f"gpus_per_worker: {len(devices)}: {len(astray)} tensors of {name} "
                f"({size / GIB:.2f} GiB), such as {first}, are on {tensor.device} instead of a GPU."
            )


def told(places: Mapping[str, Place]) -> str:
    """The places in words."""
    words = []
    for name, at in places.items():
        on = sorted({at.gpu, *at.blocks.values()})
        counts = " + ".join(str(list(at.blocks.values()).count(gpu)) for gpu in on)
        split = f"split over {', '.join(map(str, on))} ({counts} blocks)"
        words.append(f"{name} {split if at.is_split else f'on {at.gpu}'}")
    return "; ".join(words)


def _check_memory(spec: WorkerSpec) -> None:
    if spec.memory != "full":
        raise InputError(
            f"memory: {spec.memory} is for workers with one GPU; with gpus_per_worker: "
            f"{spec.device_count} give full, or auto."
        )


def _connect(model: nn.Module, at: Place, gpus: Gpus) -> None:
    remove_hook_from_module(model, recurse=True)  # accelerate's, for which the places are enough
    connect(model, at, gpus.devices)


def _folder_of(spec: WorkerSpec) -> Path:
    """The model's folder; a hub model's after its download."""
    if Path(spec.model).is_dir():
        return Path(spec.model)
    return Path(
        DiffusionPipeline.download(
            spec.model,
            revision=spec.revision,
            variant=spec.variant,
            use_safetensors=True,
            local_files_only=is_offline_mode(),
        )
    )


def _variant_in(folder: Path, variant: str | None) -> str | None:
    """A part that has no files of the variant is loaded without, as diffusers does."""
    has_files = variant is not None and any(folder.glob(f"*.{variant}*.safetensors*"))
    return variant if has_files else None
