"""One worker's device in torch's words."""

import platform
import threading

import torch
from diffusers.utils import logging as diffusers_logging
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers.utils import logging as transformers_logging

from core.devices.memory_needs import CONTEXT
from core.worker_spec import WorkerSpec
from workers.library_warnings import take_over_handlers

BFLOAT16_SINCE = (8, 0)  # compute capability: Ampere; before, it is emulated, many times slower


def prepare_torch(spec: WorkerSpec) -> None:
    """Set up threads, no gradients, and libraries that print nothing: their words go to the log."""
    torch.set_num_threads(spec.threads)
    torch.set_grad_enabled(False)
    if spec.sharers > 1:
        _keep_to_its_share(spec)
    # Its own lock is a semaphore of the whole system, which a killed worker would leave behind.
    tqdm.set_lock(threading.RLock())
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    take_over_handlers()


def _keep_to_its_share(spec: WorkerSpec) -> None:
    """Limit this worker's memory, so that too large a task fails alone on a shared GPU."""
    _, total = torch.cuda.mem_get_info(0)
    share = spec.memory_share or total // spec.sharers
    fraction = min(1.0, max(0.0, share - CONTEXT) / total)
    torch.cuda.set_per_process_memory_fraction(fraction, 0)


def memory_left(device: torch.device) -> int:
    """Bytes that this worker may still take of a GPU, what torch holds in reserve included."""
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    share = int(torch.cuda.get_per_process_memory_fraction(device) * total)  # all, unless shared
    return max(0, min(free, share - reserved)) + reserved - torch.cuda.memory_allocated(device)


def torch_device(spec: WorkerSpec) -> torch.device:
    return torch.device("cuda:0" if spec.device == "cuda" else "cpu")


def torch_devices(spec: WorkerSpec) -> list[torch.device]:
    """All that the worker has, the one where a pipeline makes its tensors first."""
    if spec.device_count == 1:
        return [torch_device(spec)]
    return [torch.device("cuda", i) for i in range(spec.device_count)]


def identity_of(device: torch.device, spec: WorkerSpec) -> tuple[str, str]:
    """Name and UUID of a device."""
    if device.type == "cuda":
        each = [torch.cuda.get_device_properties(i) for i in range(spec.device_count)]
        names = (properties.name for properties in each)
        uuids = (str(getattr(properties, "uuid", "unknown")) for properties in each)
        return " + ".join(names), " + ".join(uuids)
    return platform.processor() or platform.machine(), spec.name


def dtype_of(spec: WorkerSpec, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a GPU, float16 on one that only emulates that, float32 on a CPU."""
    if spec.dtype == "auto":
        if device.type != "cuda":
            return torch.float32
        computes_bfloat16 = torch.cuda.get_device_capability(device) >= BFLOAT16_SINCE
        return torch.bfloat16 if computes_bfloat16 else torch.float16
    return {
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "float32": torch.float32,
    }[spec.dtype]


def device_map(spec: WorkerSpec) -> str:
    """The map by which weights go straight to the device, without a copy in host memory."""
    return spec.device


def freeze(model: torch.nn.Module) -> None:
    """Mark weights as not trained, as loading does not: compiled code depends on such marks."""
    model.requires_grad_(False)
