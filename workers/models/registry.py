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


def import_for(role: str) -> None:
    """Import what workers of a role load their models with, lazily loaded classes included."""
    import diffusers
    import peft  # noqa: F401
    import transformers

    if role == "score":
        from workers.judges import registry  # noqa: F401

        _ = transformers.Qwen3VLForConditionalGeneration
    elif role == "edit":
        from workers.models import native_image_editor  # noqa: F401

        _ = diffusers.QwenImageEditPlusPipeline
    else:
        from workers.models import native_image_generator  # noqa: F401

        _ = diffusers.ZImagePipeline
