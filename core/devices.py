"""Which devices a run uses, and the `CUDA_VISIBLE_DEVICES` that each worker is born with.

Main asks NVML, never CUDA: a CUDA context in main would cost memory on GPU 0 and could not
be handed to workers. Ids count the devices that this process may see, so an inherited mask
(indices, GPU or MIG UUIDs) is mapped through, as CUDA itself does.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import pynvml  # type: ignore[import-untyped]

from core.errors import DeviceError

MAX_CPU_WORKERS = 64
MIB = 1024**2


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG slice, as NVML lists it."""

    index: int
    uuid: str
    name: str
    memory: int  # bytes in all
    mig: bool = False


@dataclass(frozen=True)
class Device:
    """One worker's device. `mask` is its `CUDA_VISIBLE_DEVICES`; inside it is always `cuda:0`.

    Attributes:
        memory: bytes; 0 = unknown.
        more_ids: further GPUs of a worker whose model is spread over several.
    """

    kind: Literal["cuda", "cpu"]
    id: int
    mask: str
    memory: int = 0
    more_ids: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        ids = "+".join(map(str, (self.id, *self.more_ids)))
        return f"{'gpu' if self.kind == 'cuda' else 'cpu'}{ids}"

    @property
    def count(self) -> int:
        return 1 + len(self.more_ids)


def in_groups(devices: Sequence[Device], size: int) -> list[Device]:
    """Devices joined `size` at a time, each group for one worker with one copy of the model.

    Raises:
        DeviceError: their number is no multiple of `size`.
    """
    if size == 1 or devices[0].kind == "cpu":
        return list(devices)
    if len(devices) % size:
        raise DeviceError(
            f"gpus_per_worker: {len(devices)} GPUs cannot be shared out in groups of {size}."
        )
    groups = [devices[i : i + size] for i in range(0, len(devices), size)]
    return [
        Device(
            "cuda",
            group[0].id,
            ",".join(d.mask for d in group),
            sum(d.memory for d in group),
            tuple(d.id for d in group[1:]),
        )
        for group in groups
    ]


def list_gpus() -> list[Gpu]:
    """Every GPU or MIG slice that torch can use, without touching CUDA; [] without a driver."""
    if version("torch").endswith("+cpu"):
        return []  # a build without CUDA: the GPUs are there, but not for us
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [g for i in range(pynvml.nvmlDeviceGetCount()) for g in _gpus_at(i)]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def memory_in_use(devices: Sequence[Device]) -> int | None:
    """Bytes in use on all of some CUDA devices, by whomever; None without CUDA devices."""
    if any(device.kind != "cuda" for device in devices):
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        masks = [mask for device in devices for mask in device.mask.split(",")]
        return sum(int(pynvml.nvmlDeviceGetMemoryInfo(_handle_of(m)).used) for m in masks)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _handle_of(mask: str) -> object:
    if mask.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(mask))
    return pynvml.nvmlDeviceGetHandleByUUID(mask.encode())


def _gpus_at(index: int) -> list[Gpu]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    slices = _mig_slices(handle)
    if slices is None:
        return [_describe(index, handle, mig=False)]
    return [_describe(index, s, mig=True) for s in slices]


def _mig_slices(handle: object) -> list[object] | None:
    """Handles of the MIG slices; None where MIG is off or unknown to the GPU."""
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
        if current != pynvml.NVML_DEVICE_MIG_ENABLE:
            return None
        count = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError:
        return None
    slices = []
    for i in range(count):
        try:
            slices.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, i))
        except pynvml.NVMLError:  # an empty slot
            continue
    return slices


def _describe(index: int, handle: object, mig: bool) -> Gpu:
    return Gpu(
        index=index,
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        memory=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        mig=mig,
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def visible_devices(gpus: Sequence[Gpu], inherited: str | None) -> list[Device]:
    """The CUDA devices that this process may use, in the order of their ids.

    Args:
        gpus: what NVML lists.
        inherited: `CUDA_VISIBLE_DEVICES` of this process; None if unset.
    """
    if inherited is None:
        # A MIG slice has no index of its own: CUDA knows it by UUID alone.
        masks = [(g.uuid if g.mig else str(g.index), g.memory) for g in gpus]
    else:
        masks = _through_mask(gpus, inherited)
    return [Device("cuda", i, mask, memory) for i, (mask, memory) in enumerate(masks)]


def _through_mask(gpus: Sequence[Gpu], inherited: str) -> list[tuple[str, int]]:
    """CUDA reads a mask up to its first token that names no device, and so do we."""
    found: list[tuple[str, int]] = []
    for token in (t.strip() for t in inherited.split(",")):
        gpu = _named(gpus, token)
        if gpu is None or token in [mask for mask, _ in found]:
            break
        found.append((token, gpu.memory))
    return found


def _named(gpus: Sequence[Gpu], token: str) -> Gpu | None:
    if token.isdecimal():
        return next((g for g in gpus if g.index == int(token)), None)
    if token.upper().startswith(("GPU-", "MIG-")):
        return next((g for g in gpus if g.uuid.lower().startswith(token.lower())), None)
    return None


def choose_devices(
    num_gpus: int | None = None,
    gpu_ids: Sequence[int] | None = None,
    kind: Literal["auto", "cuda", "cpu"] = "auto",
    environ: Mapping[str, str] = os.environ,
    probe: Callable[[], list[Gpu]] = list_gpus,
) -> list[Device]:
    """One device per worker.

    Without CUDA, `num_gpus` CPU workers stand in (one by default), or one per id.

    Raises:
        DeviceError: an id twice, an id or a number beyond what is visible.
    """
    _check_request(num_gpus, gpu_ids)
    visible = [] if kind == "cpu" else visible_devices(probe(), environ.get("CUDA_VISIBLE_DEVICES"))
    if not visible:
        if kind == "cuda":
            raise DeviceError("device: cuda was asked for, but no CUDA device is visible.")
        return _cpu_devices(num_gpus, gpu_ids, hide_gpus=kind == "cpu")
    if gpu_ids is None:
        gpu_ids = range(len(visible) if num_gpus is None else num_gpus)
    beyond = [i for i in gpu_ids if i >= len(visible)]
    if beyond:
        raise DeviceError(
            f"GPU {beyond[0]} was asked for, but {len(visible)} "
            f"{'is' if len(visible) == 1 else 'are'} visible (ids 0 to {len(visible) - 1})."
        )
    return [visible[i] for i in gpu_ids]


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
