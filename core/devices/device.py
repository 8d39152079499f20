"""Which devices a run uses, and the `CUDA_VISIBLE_DEVICES` that each worker is born with.

Main asks NVML, never CUDA: a CUDA context in main would cost memory on GPU 0 and could not
be handed to workers. Ids count the devices that this process may see, so an inherited mask
(indices, GPU or MIG UUIDs) is mapped through, as CUDA itself does.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from loguru import logger

from core.devices.gpu import Gpu, Unlisted
from core.errors import DeviceError

MAX_CPU_WORKERS = 64


@dataclass(frozen=True)
class Device:
    """One worker's device. `mask` is its `CUDA_VISIBLE_DEVICES`; inside it is always `cuda:0`.

    Attributes:
        memory: bytes; 0 = unknown.
        more_ids: further GPUs of a worker whose model is spread over several.
        free: bytes of its memory that nobody used when the run began; None = unknown.
        capability: CUDA's compute capability, of several GPUs the least; None = unknown.
        sharers: workers that have this GPU together; `memory` and `free` are one's share.
        letter: which of them this is.
        node: the machine that has it, by its name in a cluster; empty for this one.
    """

    kind: Literal["cuda", "cpu"]
    id: int
    mask: str
    memory: int = 0
    more_ids: tuple[int, ...] = ()
    free: int | None = None
    capability: tuple[int, int] | None = None
    sharers: int = 1
    letter: str = ""
    node: str = ""

    @property
    def label(self) -> str:
        ids = "+".join(map(str, (self.id, *self.more_ids)))
        place = f"{self.node}/" if self.node else ""
        return f"{place}{'gpu' if self.kind == 'cuda' else 'cpu'}{ids}{self.letter}"

    @property
    def count(self) -> int:
        return 1 + len(self.more_ids)

    @property
    def free_or_all(self) -> int:
        """Bytes free on the device, or all of its memory where that is not known."""
        return self.memory if self.free is None else self.free


def in_groups(devices: Sequence[Device], size: int) -> list[Device]:
    """Devices joined `size` at a time, each group for one worker with one copy of the model.

    Raises:
        DeviceError: their number is no multiple of `size`, or they are slices of GPUs.
    """
    if size == 1 or devices[0].kind == "cpu":
        return list(devices)
    if len(devices) % size:
        there = "1 GPU" if len(devices) == 1 else f"{len(devices)} GPUs"
        raise DeviceError(f"gpus_per_worker: {there} cannot be shared out in groups of {size}.")
    slices = [d.label for d in devices if d.mask.upper().startswith("MIG-")]
    if slices:
        raise DeviceError(
            f"gpus_per_worker: {slices[0]} is a MIG slice, and CUDA shows a process only one."
        )
    groups = [devices[i : i + size] for i in range(0, len(devices), size)]
    return [
        replace(
            group[0],
            mask=",".join(d.mask for d in group),
            memory=sum(d.memory for d in group) if all(d.memory for d in group) else 0,
            more_ids=tuple(d.id for d in group[1:]),
            free=None if any(d.free is None for d in group) else sum(d.free or 0 for d in group),
            capability=least_capability(group),
        )
        for group in groups
    ]


def least_capability(devices: Sequence[Device]) -> tuple[int, int] | None:
    """What every one of some CUDA devices can compute; None where one does not say."""
    known = [d.capability for d in devices if d.capability is not None]
    return min(known) if known and len(known) == len(devices) else None


def memory_in_use(devices: Sequence[Device]) -> int | None:
    """Bytes in use on all of some CUDA devices, by whomever; None without CUDA devices here."""
    if any(device.kind != "cuda" or device.node for device in devices):
        return None
    masks = [mask for device in devices for mask in device.mask.split(",")]
    from core.devices.nvml import bytes_in_use

    return bytes_in_use(list(dict.fromkeys(masks)))  # workers may share one


def _seen(gpus: Sequence[Gpu], inherited: str | None) -> list[tuple[str, Gpu]]:
    """What this process sees, by id, with the mask that names it to CUDA."""
    if inherited is None:
        # Not by index: CUDA counts in an order of its own, and only what works.
        return [(g.uuid, g) for g in gpus]
    return _through_mask(gpus, inherited)


def _usable(seen: Sequence[tuple[str, Gpu]]) -> list[Device]:
    """The id of one with a fault is left out, so that the others' do not depend on it."""
    return [
        Device("cuda", i, mask, gpu.memory, free=gpu.free, capability=gpu.capability)
        for i, (mask, gpu) in enumerate(seen)
        if gpu.fault is None
    ]


def _through_mask(gpus: Sequence[Gpu], inherited: str) -> list[tuple[str, Gpu]]:
    """Read a mask as CUDA does: up to its first token that names no device."""
    all_work = all(g.fault is None for g in gpus)
    found: dict[str, tuple[str, Gpu]] = {}
    for token in (t.strip() for t in inherited.split(",")):
        gpu = _named(gpus, token)
        if gpu is None or token in found:
            break
        # An index counts for CUDA among those that work.
        found[token] = (token if all_work or not token.isdecimal() else gpu.uuid, gpu)
    return list(found.values())


def _named(gpus: Sequence[Gpu], token: str) -> Gpu | None:
    if token.isdecimal():
        return next((g for g in gpus if g.index == int(token)), None)
    if token.upper().startswith(("GPU-", "MIG-")):
        named = (g for g in gpus if g.uuid.lower().startswith(token.lower()))
        silent = (g for g in gpus if g.fault is not None)  # it may be this one
        return next(named, None) or next(silent, None)
    return None


def choose_devices(
    num_gpus: int | None = None,
    gpu_ids: Sequence[int] | None = None,
    kind: Literal["auto", "cuda", "cpu"] = "auto",
    environ: Mapping[str, str] = os.environ,
    probe: Callable[[], list[Gpu]] | None = None,
    probe_unlisted: Callable[[], Unlisted | None] | None = None,
) -> list[Device]:
    """One device per worker.

    Without CUDA, `num_gpus` CPU workers stand in (one by default), or one per id; not where
    there are GPUs and none of them works, or none can be listed.

    Args:
        probe, probe_unlisted: tell which GPUs there are; by default NVML does.

    Raises:
        DeviceError: an id twice, an id or a number beyond what is visible, or no GPU works.
    """
    _check_request(num_gpus, gpu_ids)
    if kind == "cpu":
        return _cpu_devices(num_gpus, gpu_ids, hide_gpus=True)
    from core.devices import nvml  # who has a daemon's devices starts without it

    gpus = (probe or nvml.list_gpus)()
    inherited = environ.get("CUDA_VISIBLE_DEVICES")
    seen = _seen(gpus, inherited)
    if not seen:
        unlisted = (
            None if gpus or inherited in ("", "-1") else (probe_unlisted or nvml.unlisted_gpus)()
        )
        _mind_unlisted(unlisted, kind)
        return _cpu_devices(num_gpus, gpu_ids, hide_gpus=False)
    faults = {i: gpu.fault for i, (_, gpu) in enumerate(seen) if gpu.fault is not None}
    shown = "; ".join(f"GPU {i}: {fault}" for i, fault in faults.items())
    usable = _usable(seen)
    if not usable:
        raise DeviceError(f"No GPU can be used ({shown}). For CPU workers, set device: cpu.")
    if gpu_ids is not None:
        return _with_ids(gpu_ids, usable, faults)
    if num_gpus is not None and num_gpus > len(usable):
        are = "is" if len(usable) == 1 else "are"
        but = f" and can be used ({shown})" if faults else ""
        raise DeviceError(f"{num_gpus} GPUs were asked for, but {len(usable)} {are} visible{but}.")
    if faults:
        logger.warning(f"Not every GPU can be used ({shown}).")
    return usable[:num_gpus]


def _mind_unlisted(unlisted: Unlisted | None, kind: str) -> None:
    """Refuse a run where GPUs are present and cannot be used, instead of passing them over."""
    because = f": {unlisted.reason}" if unlisted else ""
    if kind == "cuda":
        raise DeviceError(f"device: cuda was asked for, but no CUDA device is visible{because}.")
    if unlisted is None:
        return
    if unlisted.usable:
        raise DeviceError(f"No GPU can be used{because}. For CPU workers, set device: cpu.")
    logger.warning(f"The CPU is used{because}. To have no such line, set device: cpu.")


def _with_ids(
    ids: Sequence[int], usable: Sequence[Device], faults: Mapping[int, str]
) -> list[Device]:
    by_id = {device.id: device for device in usable}
    for i in ids:
        if i in faults:
            raise DeviceError(f"GPU {i} was asked for, but it cannot be used: {faults[i]}.")
        if i not in by_id:
            raise DeviceError(f"GPU {i} was asked for, but {_ids(sorted({*by_id, *faults}))}.")
    return [by_id[i] for i in ids]


def _ids(ids: Sequence[int]) -> str:
    are = "is" if len(ids) == 1 else "are"
    return f"{len(ids)} {are} visible (ids {ids[0]} to {ids[-1]})"


def _check_request(num_gpus: int | None, gpu_ids: Sequence[int] | None) -> None:
    if num_gpus is not None and num_gpus < 1:
        raise DeviceError(f"The number of GPUs must be 1 or more (found {num_gpus}).")
    if gpu_ids is None:
        return
    if not gpu_ids:
        raise DeviceError("The list of GPU ids is empty.")
    if any(i < 0 for i in gpu_ids):
        raise DeviceError(f"GPU ids count from 0 (found {min(gpu_ids)}).")
    if len(set(gpu_ids)) != len(gpu_ids):
        raise DeviceError(f"A GPU id is given twice: {list(gpu_ids)}.")
    if num_gpus is not None and num_gpus != len(gpu_ids):
        raise DeviceError(f"{num_gpus} GPUs were asked for, but {len(gpu_ids)} ids are given.")


def _cpu_devices(
    num_gpus: int | None, gpu_ids: Sequence[int] | None, hide_gpus: bool
) -> list[Device]:
    ids = list(gpu_ids) if gpu_ids is not None else list(range(num_gpus or 1))
    if len(ids) > MAX_CPU_WORKERS:
        raise DeviceError(f"{len(ids)} CPU workers were asked for; {MAX_CPU_WORKERS} is the most.")
    return [Device("cpu", i, "" if hide_gpus else str(i)) for i in ids]
