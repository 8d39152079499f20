"""Finds the class of a judge by its type."""

from core.registry import named_object
from core.worker_spec import WorkerSpec
from workers.models.base import Log, ModelFamily


def create_judge(spec: WorkerSpec, log: Log) -> ModelFamily:
    """The judge for a worker's settings, not loaded yet. Imports only what it needs."""
    assert spec.judge is not None
    family: ModelFamily = named_object(spec.judge.type.served_by)(spec, log)
    return family


def preload() -> None:
    """Import the usual judge's class, which transformers does only when it is asked for."""
    import transformers

    _ = transformers.Qwen3VLForConditionalGeneration
