"""How long tasks take and how large pictures are where nothing was measured here: wide spans.

A denoiser computes two operations for each of its numbers and for each token of the picture. What
of a GPU's highest speed a pipeline reaches depends on sizes, kernels and drivers: 20 to 60 % is
usual. Highest speeds are those of NVIDIA's data sheets, of the least and the greatest card of each
compute capability that has the memory for such models, in dense bfloat16 (float16 before Ampere).
"""

from collections.abc import Sequence

from core.checkpoints.checkpoint import Checkpoint
from core.devices.device import Device
from core.devices.working_memory import tokens_of
from core.dry_run.span import Span
from core.memory_modes import FACTS, Mode

# Of compute capability, in 10^12 operations a second. T4 to Titan RTX; V100; A100; A10 to A40 and
# RTX 3090; L4 to L40S and RTX 4090; H100 PCIe to H200; B200; RTX 5070 to RTX PRO 6000.
_GPUS: dict[tuple[int, int], tuple[float, float]] = {
    (7, 0): (112, 130), (7, 5): (65, 130), (8, 0): (312, 312), (8, 6): (71, 150),
    (8, 9): (90, 362), (9, 0): (756, 989), (10, 0): (1800, 2500), (12, 0): (120, 500),
}  # fmt: skip
_SHARE = (0.2, 0.6)
_CPU = (0.005, 0.1)  # of one worker's share of the cores, in float32
# Bytes a second: of a GPU's bus, and of a disk from which a model or a LoRA is read.
_BUS, _DISK = (6e9, 40e9), (0.3e9, 4e9)
# Measured on two cores (benchmarks/RESULTS.md): seconds per unit of work of the demo models.
_DEMO = {
    "demo-model": Span(0.6, 1.2, 4.0),
    "demo-editor": Span(0.5, 1.5, 6.0),
    "demo-judge": Span(0.02, 0.1, 0.6),
}
_DEMO_LOAD = Span(2.0, 6.0, 20.0)
_START = {"cuda": (4.0, 30.0), "cpu": (2.0, 15.0)}  # seconds until a worker can load

# Bytes a pixel of what models draw, RGB. Run lengths do little for noise; a plain area is nothing.
PNG, WEBP, OTHER = Span(0.8, 1.9, 3.05), Span(0.5, 1.4, 2.6), Span(0.05, 0.25, 1.5)
VERDICT = Span(1_000, 4_000, 30_000)  # bytes


def seconds_per_work(
    checkpoint: Checkpoint | None,
    identity: str,
    device: Device,
    mode: Mode,
    work: float,
    steps: int,
) -> tuple[Span, str] | None:
    """Seconds of a worker for a unit of work, and what that is taken from; None if nothing says.

    Args:
        identity: of the model.
        work: of a usual task.
        steps: of one.
    """
    demo = _DEMO.get(identity.partition("#")[0])
    if demo is not None:
        return demo, "what the demo models take on a CPU core"
    if checkpoint is None or not checkpoint.of_kind("denoiser"):
        return None
    speeds = _speeds(device)
    if speeds is None:
        return None
    operations = (
        2
        * tokens_of(checkpoint)
        * sum(part.weights.numbers for part in checkpoint.of_kind("denoiser"))
    )
    span = _over(operations, speeds)
    moved = _moved(checkpoint, mode, steps)
    if moved:
        span += _over(moved, _BUS) * (1 / max(work, 1e-9))
    at = "a CPU"
    if device.kind == "cuda" and device.capability is not None:
        at = "GPUs of compute capability {}.{}".format(*device.capability)
    return span, f"the model's arithmetic, at what {at} usually reach"


def load_seconds(checkpoint: Checkpoint | None, identity: str, kind: str) -> Span | None:
    """Seconds until a worker has a model ready, once its files are here; None if nothing says."""
    if identity.partition("#")[0] in _DEMO:
        return _DEMO_LOAD
    if checkpoint is None:
        return None
    low, high = _START[kind]
    return Span(low, (low * high) ** 0.5, high) + _over(checkpoint.as_stored, _DISK)


def lora_seconds(size: float) -> Span:
    """Seconds for a LoRA of so many bytes to be read and put on."""
    return _over(size, _DISK) + Span(0.02, 0.3, 2.0)


def picture_bytes(suffix: str) -> Span:
    """Bytes for each pixel of a picture in a format."""
    return {".png": PNG, ".webp": WEBP}.get(suffix.lower(), OTHER)


def _speeds(device: Device) -> tuple[float, float] | None:
    """The least and the greatest number of operations a second that a worker may reach."""
    if device.kind == "cpu":
        return _CPU[0] * 1e12, _CPU[1] * 1e12
    known = [c for c in _GPUS if device.capability is not None and c <= device.capability]
    if not known:
        return None
    least, greatest = _GPUS[max(known)]
    return least * _SHARE[0] * 1e12 / device.sharers, greatest * _SHARE[1] * 1e12


def _moved(checkpoint: Checkpoint, mode: Mode, steps: int) -> float:
    """Bytes of weights that come to the GPU for one task."""
    held = FACTS[mode].held
    if held == "all":
        return 0.0
    of_steps = sum(p.weights.as_stored for p in checkpoint.of_kind("denoiser"))
    others = checkpoint.as_stored - of_steps
    return others + of_steps * (steps if held == "layers" else 1)


def _over(amount: float, speeds: Sequence[float]) -> Span:
    """Seconds for an amount at a speed between two, the usual one in the middle of their ratio."""
    low, high = amount / speeds[1], amount / speeds[0]
    return Span(low, (low * high) ** 0.5, high)
