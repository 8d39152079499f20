"""Finds the class that serves a worker: the one that the kind of its tasks names."""

import sys

from core.registry import named_object
from core.tasks import ROLES
from core.worker_spec import WorkerSpec
from workers.models.base import Log, ModelFamily


def create_family(spec: WorkerSpec, log: Log) -> ModelFamily:
    """The family for a worker's role and model, not loaded yet. Imports only what it needs."""
    kind = ROLES[spec.role]
    place = kind.simulated_by if spec.model == "simulated" else kind.served_by
    family: ModelFamily = named_object(place)(spec, log)
    return family


def import_for(role: str) -> None:
    """Import what workers of a role load their models with, lazily loaded classes included."""
    import diffusers  # noqa: F401
    import peft  # noqa: F401
    import transformers  # noqa: F401

    served_by = named_object(ROLES[role].served_by)
    preload = getattr(sys.modules[served_by.__module__], "preload", None)
    if preload is not None:
        preload()
