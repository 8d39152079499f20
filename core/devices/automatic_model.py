"""What `model: auto` means: a hub model where it fits into every chosen GPU, else a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.checkpoints.known_models import known_checkpoint
from core.devices.device import Device
from core.devices.host_memory import host_memory
from core.devices.memory_needs import GIB, Need, gib, needs_of
from core.devices.working_memory import Demand
from core.errors import DeviceError
from core.memory_modes import Mode
from core.model_settings import Dtype


@dataclass(frozen=True)
class Automatic:
    """What `auto` means: a hub model where every chosen GPU has the memory, else a folder.

    Attributes:
        demand: what is usually asked of the hub model, in what is written down of it.
    """

    hub_id: str
    demo: Path
    demo_identity: str
    demand: Demand

    def needs(self, modes: Sequence[Mode], dtype: Dtype, gpus: int) -> list[Need]:
        """What the model needs in each memory mode, in the order of the modes."""
        known = known_checkpoint(self.hub_id)
        assert known is not None, f"{self.hub_id} is not in known_models.json"
        return list(needs_of(known, modes, self.demand, dtype, gpus))


def resolved(
    devices: Sequence[Device],
    automatic: Automatic,
    modes: Sequence[Mode],
    dtype: Dtype,
    host_free: int,
) -> tuple[str, str]:
    """Name and reason: the hub model, where it fits into every GPU in some memory mode."""
    gpus = [d for d in devices if d.kind == "cuda"]
    needs = automatic.needs(modes, dtype, gpus[0].count if gpus else 1)
    why = why_not(gpus, needs, automatic.hub_id)
    if why is not None:
        return str(automatic.demo), f"auto: {why}"
    check_free(gpus, automatic, needs, host_free)
    return automatic.hub_id, "auto: it fits into every chosen GPU"


def why_not(gpus: Sequence[Device], needs: Sequence[Need], name: str) -> str | None:
    """Why a model can never be used here; None where it can be, if its memory is free."""
    enough = f"{needs[0].total / GIB:.0f} GiB"
    if not gpus:
        least = min(needs, key=lambda need: need.total)
        or_less = (
            "" if least is needs[0] else f", or of {gib(least.total)} with memory: {least.mode}"
        )
        return f"no GPU is visible, and {name} needs one of {enough}{or_less}"
    if any(gpu.memory == 0 for gpu in gpus):
        return f"a chosen GPU does not say whether it has {enough}, which {name} needs"
    fitting = [need for need in needs if all(need.total <= gpu.memory for gpu in gpus)]
    if not fitting:
        lowest = min(need.total for need in needs)
        return f"a chosen GPU has less than the {gib(lowest)} GiB that {name} needs at least"
    host, there = min(need.host_for(len(gpus)) for need in fitting), host_memory()
    if host > there:
        return f"{name} needs {gib(host)} GiB of host memory here, and there are {gib(there)}"
    return None


def check_free(
    gpus: Sequence[Device], automatic: Automatic, needs: Sequence[Need], host_free: int
) -> None:
    """Raises DeviceError where others use what the model needs at least.

    The demo model does not stand in then: a run that goes on while a GPU is busy would draw with
    another model than before.
    """
    means = f"model: auto means {automatic.hub_id} here, which needs"
    instead = f"Wait, choose other GPUs, or name a model, such as {automatic.demo}."
    fitting = [need for need in needs if need.host_for(len(gpus)) <= host_free]
    if not fitting:
        least = min(need.host_for(len(gpus)) for need in needs)
        raise DeviceError(
            f"{means} {gib(least)} GiB of host memory, but only {gib(host_free)} are free. "
            f"{instead}"
        )
    need = min(fitting, key=lambda need: need.total)
    for gpu in gpus:
        if gpu.free_or_all < need.total:
            free, total = (round(size / GIB) for size in (gpu.free_or_all, gpu.memory))
            raise DeviceError(
                f"{means} at least {gib(need.total)} GiB (memory: {need.mode}), but only {free} of "
                f"the {total} GiB of {gpu.label} are free. {instead}"
            )
