"""Everything a worker is born knowing. Pickled once into the new process."""

from dataclasses import dataclass
from typing import Literal

from core.settings import SimulatedSettings


@dataclass(frozen=True)
class WorkerSpec:
    """The lasting orders of one worker; tasks come later, as leases.

    Attributes:
        name: label in logs and results, such as `gpu0`.
        device: `cuda` (always `cuda:0` inside) or `cpu`.
        threads: CPU threads for this worker's arithmetic.
        model: hub id, folder, or `simulated`.
        model_identity: what the picture's metadata calls the model, `name#hash`.
    """

    name: str
    parent_pid: int
    device: Literal["cuda", "cpu"]
    threads: int
    model: str
    model_identity: str
    revision: str | None
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    max_resident_loras: int
    max_pending_saves: int
    png_compress_level: int
    simulated: SimulatedSettings
