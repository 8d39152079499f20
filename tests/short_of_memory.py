"""A worker's process whose decoder runs out of memory with all but small pictures."""

from multiprocessing.connection import Connection
from typing import Any

from core.processes.entry_points import run_worker
from core.worker_spec import WorkerSpec

MOST = 32 * 32  # pixels of latents


def short_of_memory(spec: WorkerSpec, reader: Connection, writer: Connection) -> None:
    """Run a worker with real models, on a device that holds little."""
    import torch
    from diffusers.models.autoencoders.vae import Decoder

    forward = Decoder.forward

    def short(self: Any, sample: Any, *args: Any, **given: Any) -> Any:
        if sample.shape[-1] * sample.shape[-2] > MOST:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return forward(self, sample, *args, **given)

    Decoder.forward = short
    run_worker(spec, reader, writer)
