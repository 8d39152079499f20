"""The GPUs of this machine and their driver, as NVML and the device files show them."""

import os
from collections.abc import Callable
from typing import Any

from apps.doctor.finding import Finding
from core.devices.gpu import Gpu, Unlisted

GIB = 1024**3


def list_gpus() -> list[Gpu]:
    """GPUs that the driver lists.

    Raises:
        ImportError: nvidia-ml-py is not installed.
    """
    from core.devices import nvml

    return nvml.list_gpus()


def unlisted_gpus() -> Unlisted | None:
    """GPUs that are there although the driver does not list them."""
    from core.devices import nvml

    return nvml.unlisted_gpus()


def driver() -> dict[str, Any]:
    """Versions of the driver and of the CUDA that it supports; {} without one."""
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
    except Exception:  # no package, no library, no driver
        return {}
    try:
        found = pynvml.nvmlSystemGetDriverVersion()
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        shown = found.decode() if isinstance(found, bytes) else str(found)
        return {"driver": shown, "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}"}
    except Exception:
        return {}
    finally:
        pynvml.nvmlShutdown()


def gpus(
    probe: Callable[[], list[Gpu]] = list_gpus,
    probe_unlisted: Callable[[], Unlisted | None] = unlisted_gpus,
    probe_driver: Callable[[], dict[str, Any]] = driver,
) -> tuple[int, list[Finding]]:
    """How many GPUs there are, and how each of them is."""
    try:
        found, unlisted = probe(), None
        if not found:
            unlisted = probe_unlisted()
    except ImportError:
        finding = Finding(
            "problem",
            "GPUs",
            "They cannot be listed: the package nvidia-ml-py is missing.",
            "pip install -r requirements.txt",
        )
        return 0, [finding]
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not found:
        return (0 if unlisted is None else 1), [_none(unlisted)]
    told = probe_driver()
    findings = [_driver(told)] if told else []
    findings += [_gpu(gpu) for gpu in found]
    if mask is not None:
        findings.append(
            Finding("note", "CUDA_VISIBLE_DEVICES", f"{mask!r}: a run sees these GPUs alone.")
        )
    return len(found), findings


def _none(unlisted: Unlisted | None) -> Finding:
    if unlisted is None:
        return Finding(
            "note",
            "GPUs",
            "None: the embedded demo models run on the CPU, and larger ones very slowly.",
        )
    level, text = ("problem", unlisted.reason) if unlisted.usable else ("note", unlisted.reason)
    advice = "" if unlisted.usable else "Install a torch for these GPUs, or set device: cpu."
    return Finding(level, "GPUs", f"{text[:1].upper()}{text[1:]}.", advice)  # type: ignore[arg-type]


def _driver(told: dict[str, Any]) -> Finding:
    return Finding("ok", "driver", f"{told['driver']}, for CUDA up to {told['cuda']}.", facts=told)


def _gpu(gpu: Gpu) -> Finding:
    name = f"GPU {gpu.index}"
    facts = {
        "name": gpu.name,
        "memory": gpu.memory,
        "free": gpu.free,
        "capability": gpu.capability,
        "mig": gpu.mig,
    }
    if gpu.fault is not None:
        return Finding(
            "note",
            name,
            f"It cannot be used: {gpu.fault}.",
            "A run leaves it out; look at `nvidia-smi` and the kernel's log (`dmesg`).",
            {**facts, "fault": gpu.fault},
        )
    shown = f"{gpu.name}{', a MIG slice' * gpu.mig}"
    if gpu.memory and gpu.free is not None:
        shown += f", {gpu.free / GIB:.1f} of {gpu.memory / GIB:.1f} GiB free"
    elif gpu.memory:
        shown += f", {gpu.memory / GIB:.1f} GiB"
    if gpu.capability is not None:
        shown += ", compute capability {}.{}".format(*gpu.capability)
    if gpu.memory and gpu.free is not None and gpu.free < gpu.memory / 2:
        return Finding(
            "note", name, f"{shown}.", "Another program uses it: `nvidia-smi` says which.", facts
        )
    return Finding("ok", name, f"{shown}.", facts=facts)
