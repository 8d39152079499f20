"""Which family serves a model. A new family is one new file and one line here."""

from core.worker_spec import WorkerSpec
from workers.models.base import Log, ModelFamily


def create_family(spec: WorkerSpec, log: Log) -> ModelFamily:
    """The family for `spec.model`, not loaded yet. Imports only what that family needs."""
    if spec.model == "simulated":
        from workers.simulated_gpu import SimulatedGpu

        return SimulatedGpu(spec, log)
    from workers.models.native_image_generator import NativeImageGenerator

    return NativeImageGenerator(spec, log)
