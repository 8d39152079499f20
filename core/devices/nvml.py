"""What NVML, the driver's own library, says about this machine's GPUs."""

from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

import pynvml  # type: ignore[import-untyped]
from loguru import logger

from core.devices.gpu import Gpu, Unlisted

version = cache(metadata.version)  # a package's record is long, and does not change meanwhile


def list_gpus() -> list[Gpu]:
    """Every GPU or MIG slice, without touching CUDA; [] without a driver.

    One that does not answer is listed with its fault: it must not hide the others.
    """
    if _torch_build() == "cpu":
        return []  # a build without CUDA: the GPUs are there, but not for us
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []
    except pynvml.NVMLError as error:
        return _none_listed(error)
    try:
        return _list_gpus()
    except pynvml.NVMLError as error:
        return _none_listed(error)
    finally:
        pynvml.nvmlShutdown()


def _torch_build() -> str:
    """What torch is built for, as its version says: cpu, cu130, rocm7.1; empty where unknown."""
    try:
        return version("torch").partition("+")[2]
    except metadata.PackageNotFoundError:  # installed in a way that leaves no record
        return ""


def unlisted_gpus(dev: Path = Path("/dev")) -> Unlisted | None:
    """What the system's device files say where `list_gpus` finds nothing; None for no GPUs."""
    build = _torch_build()
    nvidia = sorted(file for file in dev.glob("nvidia*") if file.name[6:].isdecimal())
    amd = dev / "kfd"
    if nvidia and build != "cpu" and not build.startswith("rocm"):
        return Unlisted(
            f"there are GPUs ({nvidia[0]}), but the driver's library NVML is missing or does not "
            "answer; in a container, start it with NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            usable=True,
        )
    if amd.exists() and build.startswith("rocm"):
        return Unlisted(f"AMD GPUs ({amd}) are not supported yet", usable=True)
    found = nvidia[0] if nvidia else amd
    if nvidia or amd.exists():
        made_for = "CPUs alone" if build == "cpu" else "other devices"
        return Unlisted(f"there are GPUs ({found}), but this torch is built for {made_for}", False)
    return None


def _list_gpus() -> list[Gpu]:
    found: list[Gpu] = []
    position = 0
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            found += _gpus_of(position, pynvml.nvmlDeviceGetHandleByIndex(index))
        except pynvml.NVMLError_NoPermission:
            continue  # withheld from this process (cgroups); CUDA does not count it, either
        except pynvml.NVMLError as error:
            found.append(_faulty(position, str(error)))
        position += 1
    return found


def _none_listed(error: Exception) -> list[Gpu]:
    logger.warning(f"The driver cannot list its GPUs: {error}.")
    return []


def bytes_in_use(masks: Sequence[str]) -> int | None:
    """Memory in use by whomever, on GPUs by index or UUID together; None if NVML cannot say."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return sum(int(pynvml.nvmlDeviceGetMemoryInfo(_handle_of(m)).used) for m in masks)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _handle_of(mask: str) -> object:
    if mask.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(mask))
    return pynvml.nvmlDeviceGetHandleByUUID(mask.encode())


def _gpus_of(index: int, handle: object) -> list[Gpu]:
    slices = _mig_slices(handle)
    capability = _capability(handle)  # a slice computes as its GPU does, and need not say so
    if slices is None:
        return [_describe(index, handle, capability, mig=False)]
    if not slices:
        return [_faulty(index, "MIG is on, and it has no instance")]
    return [_describe(index, s, capability, mig=True) for s in slices]


def _capability(handle: object) -> tuple[int, int] | None:
    try:
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    except pynvml.NVMLError:
        return None
    return int(major), int(minor)


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


def _describe(index: int, handle: object, capability: tuple[int, int] | None, mig: bool) -> Gpu:
    try:
        memory, free = _memory(handle)
        return Gpu(
            index=index,
            uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
            name=_text(pynvml.nvmlDeviceGetName(handle)),
            memory=memory,
            mig=mig,
            free=free,
            capability=capability,
        )
    except pynvml.NVMLError as error:
        return _faulty(index, str(error))


def _memory(handle: object) -> tuple[int, int | None]:
    """Total and free bytes of a GPU's memory."""
    try:
        info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError_NotSupported:  # as where the GPU shares the host's memory
        return 0, None
    return int(info.total), int(info.free)


def _faulty(index: int, fault: str) -> Gpu:
    return Gpu(index, uuid="", name="", memory=0, fault=fault)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
