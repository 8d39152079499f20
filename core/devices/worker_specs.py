"""What the workers of a role are born knowing, by their devices, model and settings."""

import os
from typing import TYPE_CHECKING, Protocol

from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.devices.optional_packages import saved_with
from core.settings import SimulatedSettings, WorkerSettings
from core.tasks import ROLES
from core.worker_spec import Role, WorkerSpec

if TYPE_CHECKING:
    from core.judge import Judge

MOST_AT_ONCE = 8  # pictures: from there on batches gain little


class RunSettings(Protocol):
    """The settings that every kind of run has."""

    @property
    def workers(self) -> WorkerSettings: ...
    @property
    def simulated(self) -> SimulatedSettings: ...


def spec_for(
    device: Device,
    role: Role,
    model: ModelChoice,
    settings: RunSettings,
    threads: int,
    judge: "Judge | None" = None,
) -> WorkerSpec:
    return WorkerSpec(
        name=device.label,
        role=role,
        parent_pid=os.getpid(),
        device=device.kind,
        device_count=device.count,
        threads=threads,
        model=model.path_or_id,
        model_identity=model.identity,
        revision=model.revision,
        dtype=model.dtype,
        max_resident_loras=settings.workers.max_resident_loras,
        max_cached_prompts=settings.workers.max_cached_prompts,
        max_pending_saves=settings.workers.max_pending_saves,
        simulated=settings.simulated,
        attention_backend=settings.workers.attention_backend,
        compile=settings.workers.compile,
        step_cache=settings.workers.chosen_cache,
        group_size=_group_size(role, settings.workers, judge),
        judge=judge,
        variant=model.variant,
        memory=model.memory,
        base_model=model.base_model,
        base_identity=model.base_identity,
        model_loras=model.loras,
        scheduler=model.scheduler,
        sharers=device.sharers,
        memory_share=device.free_or_all,
        saved_with=saved_with(model),
    )


def _group_size(role: Role, workers: WorkerSettings, judge: "Judge | None") -> int:
    if judge is not None:
        settings = judge.settings
        return settings.batch_size if judge.type.loads else settings.api.concurrency
    if not ROLES[role].drawn_together:
        return 1
    return MOST_AT_ONCE if workers.max_batch == "auto" else workers.max_batch
