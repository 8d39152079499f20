"""Which family serves a worker. A new family is one new file and one line here."""

from core.worker_spec import WorkerSpec
from workers.models.base import Log, ModelFamily


def create_family(spec: WorkerSpec, log: Log) -> ModelFamily:
    """The family for a worker's role and model, not loaded yet. Imports only what it needs."""
    if spec.model == "simulated":
        from workers.simulated_gpu import SimulatedGpu

        return SimulatedGpu(spec, log)
    if spec.role == "score":
        from workers.judges.registry import create_judge

        return create_judge(spec, log)
    if spec.role == "edit":
        from workers.models.native_image_editor import NativeImageEditor

        return NativeImageEditor(spec, log)
    from workers.models.native_image_generator import NativeImageGenerator

    return NativeImageGenerator(spec, log)
