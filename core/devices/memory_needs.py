"""GPU memory that a model needs in each memory mode, from what its files say of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.checkpoints.checkpoint import Checkpoint, Component
from core.devices.working_memory import Demand, working_bytes
from core.memory_modes import FACTS, Mode
from core.model_settings import Dtype
from core.names import counted

GIB = 1024**3
# A CUDA context with the kernels of torch, cuBLAS and cuDNN in it, and cuBLAS's workspaces: 0.3 to
# 0.5 GiB on the cards of these years, and per GPU.
CONTEXT = GIB // 2
LAYERS_AT_ONCE = 3  # the one that works, the one that comes, and the one that is not gone yet
WORKER_HOST = 2 * GIB  # of host memory: a worker's own, whatever its model


@dataclass(frozen=True)
class Need:
    """What one worker needs in one mode, in bytes.

    Attributes:
        weights: by component: those that are on the GPU at the moment that needs most.
        work: what is computed with at that moment.
        host: host memory for weights that wait there.
        host_once: host memory while one worker loads.
    """

    mode: Mode
    weights: tuple[tuple[str, int], ...]
    loras: int
    work: int
    context: int
    host: int = 0
    host_once: int = 0

    def host_for(self, workers: int) -> int:
        """Host memory for so many of them, which load one after the other."""
        return workers * self.host + self.host_once

    @property
    def total(self) -> int:
        return sum(size for _, size in self.weights) + self.loras + self.work + self.context

    @property
    def shown(self) -> str:
        """The parts of a need as text, for the user."""
        parts = [*self.weights, ("LoRAs", self.loras), ("work", self.work)]
        parts.append(("CUDA", self.context))
        told = ", ".join(f"{name} {gib(size)}" for name, size in parts if size)
        waiting = self.host + self.host_once
        return f"{told}; host memory {gib(waiting)}" if waiting else told


def need_of(
    checkpoint: Checkpoint, mode: Mode, demand: Demand, dtype: Dtype = "auto", gpus: int = 1
) -> Need:
    """The need of one worker on so many GPUs together, at the moment that needs most."""
    number = 4 if dtype == "float32" else 2
    weights = {c.name: _bytes(c, mode, number) for c in checkpoint.components}
    work = {
        c.name: working_bytes(c, checkpoint, demand, _working(c, dtype))
        for c in checkpoint.components
    }
    waiting = WORKER_HOST + demand.lora_bytes
    waiting += sum(_bytes(c, "full", number) for c in checkpoint.components)
    offloads = FACTS[mode].held != "all"
    found = []
    for part in checkpoint.components:
        there = [c.name for c in checkpoint.components if not offloads or c is part]
        if mode == "group_offload":  # which leaves the autoencoder where it is
            there += [c.name for c in checkpoint.of_kind("vae") if c is not part]
        works_with_loras = not offloads or part.kind in ("denoiser", "judge")
        found.append(
            Need(
                mode,
                tuple((name, weights[name]) for name in there),
                demand.lora_bytes if works_with_loras else 0,
                work[part.name],
                gpus * CONTEXT,
                host=waiting if offloads else 0,
                # Weights come as they are, and are stored in 8 bits one layer after the other.
                host_once=waiting if mode == "fp8_cast" else 0,
            )
        )
    return max(found, key=lambda need: need.total)


def _working(part: Component, dtype: Dtype) -> int:
    """Bytes of a number that it computes with; some VAEs need float32 for what float16 cannot."""
    upcast = part.kind == "vae" and dtype == "float16" and part.config.get("force_upcast") is True
    return 4 if dtype == "float32" or upcast else 2


def _bytes(part: Component, mode: Mode, number: int) -> int:
    """Bytes of a component's weights on the GPU."""
    weights, facts = part.weights, FACTS[mode]
    if part.is_quantised:
        return weights.as_stored + weights.fixed
    whole = weights.numbers * number + weights.fixed
    if facts.held == "layers" and not (part.kind == "vae" and mode == "group_offload"):
        return min(LAYERS_AT_ONCE * weights.largest_layer * number, whole)
    if facts.weight_bytes is None:
        return whole
    fewer = weights.matrices + (weights.filters if facts.convolutions else 0)
    fewer -= weights.uneven if facts.multiple > 1 else 0
    return whole - int(fewer * (number - facts.weight_bytes))


def left_as_they_are(checkpoint: Checkpoint, mode: Mode) -> str:
    """A sentence on linear layers whose sizes a mode does not take; empty where there are none."""
    facts = FACTS[mode]
    parts = [c.weights for c in checkpoint.components if not c.is_quantised]
    layers = sum(weights.uneven_layers for weights in parts)
    if facts.multiple == 1 or not layers:
        return ""
    size = gib(2 * sum(weights.uneven for weights in parts))
    stay = "stay" if layers > 1 else "stays"
    return (
        f" {counted(layers, 'linear layer')} ({size} GiB) {stay} in bfloat16: {mode} takes sizes "
        f"that are multiples of {facts.multiple}."
    )


def needs_of(
    checkpoint: Checkpoint,
    modes: Sequence[Mode],
    demand: Demand,
    dtype: Dtype = "auto",
    gpus: int = 1,
) -> tuple[Need, ...]:
    """The needs in several modes, in their order."""
    return tuple(need_of(checkpoint, mode, demand, dtype, gpus) for mode in modes)


def gib(size: int) -> str:
    """A number of bytes in GiB as text, without the unit."""
    return f"{size / GIB:.1f}"
