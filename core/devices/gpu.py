"""GPUs of this machine as its driver knows them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG slice, as NVML lists it.

    Attributes:
        memory: bytes in all; 0 = unknown.
        free: bytes that nobody uses; None = unknown.
        fault: why it cannot be used; its other attributes may be unknown then.
        capability: CUDA's compute capability, such as (8, 9); None = unknown.
    """

    index: int  # among the GPUs that this process may use
    uuid: str
    name: str
    memory: int
    mig: bool = False
    free: int | None = None
    fault: str | None = None
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Unlisted:
    """GPUs that exist on this machine although NVML does not list them.

    Attributes:
        reason: what is there, why it is not used, and what to do.
        usable: torch could use them, if they were listed.
    """

    reason: str
    usable: bool
