"""Everything a worker is born knowing. Pickled once into the new process."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from core.checkpoints.checkpoint import MODEL_INDEX, PIPELINE_INDEX
from core.checkpoints.model_loras import ModelLora
from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.devices.optional_packages import saved_with
from core.judge import Judge
from core.memory_modes import FACTS, Mode
from core.settings import Compile, Dtype, SimulatedSettings, StepCache, WorkerSettings

Role = Literal["generate", "edit", "score"]
MOST_AT_ONCE = 8  # pictures: from there on batches gain little


@dataclass(frozen=True)
class WorkerSpec:
    """The lasting orders of one worker; tasks come later, as leases.

    Attributes:
        name: label in logs and results, such as `gpu0`.
        role: the kind of task that it serves.
        device: `cuda` (always `cuda:0` inside) or `cpu`.
        device_count: GPUs that one copy of the model is spread over.
        threads: CPU threads for this worker's arithmetic.
        model: hub id, folder, or `simulated`.
        model_identity: what the picture's metadata calls the model, `name#hash`.
        group_size: leases that it may be given at once; how many of them fit into the device's
            memory is for the worker to find out.
        judge: how it scores; None for other roles.
        variant: of the model's weight files.
        memory: how the model is made to fit into the device's memory.
        base_model: where `model` is one file: hub id or folder of the model that has the rest.
        base_identity: what the picture's metadata calls that one.
        model_loras: LoRAs that every picture is drawn with.
        scheduler: settings over those of the checkpoint's scheduler, in diffusers' names.
        sharers: workers that have the GPU together.
        memory_share: bytes of a shared GPU's memory for this one; 0 = an equal part.
        saved_with: optional packages that the model's weights are of.
    """

    name: str
    role: Role
    parent_pid: int
    device: Literal["cuda", "cpu"]
    device_count: int
    threads: int
    model: str
    model_identity: str
    revision: str | None
    dtype: Dtype
    max_resident_loras: int
    max_cached_prompts: int
    max_pending_saves: int
    simulated: SimulatedSettings
    attention_backend: str = "auto"
    compile: Compile = "never"
    step_cache: StepCache | None = None
    group_size: int = 1
    judge: Judge | None = None
    variant: str | None = None
    memory: Mode = "full"
    base_model: str | None = None
    base_identity: str | None = None
    model_loras: tuple[ModelLora, ...] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    sharers: int = 1
    memory_share: int = 0
    saved_with: frozenset[str] = frozenset()

    @property
    def packages(self) -> frozenset[str]:
        """Optional packages that it has to import; others are hidden from it."""
        of_mode = FACTS[self.memory].package
        return self.saved_with | {of_mode} if of_mode else self.saved_with

    def with_paths(self, change: Callable[[str], str]) -> "WorkerSpec":
        """The same with every path as `change` says it."""
        loras = tuple(replace(lora, path=change(lora.path)) for lora in self.model_loras)
        base = None if self.base_model is None else change(self.base_model)
        return replace(self, model=change(self.model), base_model=base, model_loras=loras)

    def fetched_to(self, folder: str) -> "WorkerSpec":
        """The same where the hub's part of the model lies in a folder of this machine."""
        part = "model" if self.base_model is None else "base_model"
        return replace(self, revision=None, **{part: folder})  # type: ignore[arg-type]

    @property
    def index_file(self) -> str:
        """A file that every model of its role's kind has."""
        return MODEL_INDEX if self.role == "score" else PIPELINE_INDEX

    @property
    def source(self) -> str:
        """Where most of the model comes from: hub id, or folder; also where a part is in a file."""
        return self.base_model or self.model

    @property
    def model_name(self) -> str:
        """What its user calls the model: hub id, or folder."""
        name, has_hash, _ = self.model_identity.partition("#")
        return self.model if has_hash else name

    @property
    def most_saving(self) -> int:
        """Results that may wait to be saved: a whole group's at least, which come together."""
        return max(self.max_pending_saves, self.group_size)

    @property
    def may_compile(self) -> bool:
        """Its first task may have to wait for a compiler (`workers.compilation`)."""
        return self.compile == "always"


class RunSettings(Protocol):
    """The settings that every kind of run has."""

    @property
    def workers(self) -> WorkerSettings: ...
    @property
    def simulated(self) -> SimulatedSettings: ...


def specs_for(
    devices: Sequence[Device],
    role: Role,
    model: ModelChoice,
    settings: RunSettings,
    judge: Judge | None = None,
) -> list[tuple[Device, WorkerSpec]]:
    """One worker per device, sharing this machine's cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // len(devices))
    return [(d, spec_for(d, role, model, settings, threads, judge)) for d in devices]


def spec_for(
    device: Device,
    role: Role,
    model: ModelChoice,
    settings: RunSettings,
    threads: int,
    judge: Judge | None = None,
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


def _group_size(role: Role, workers: WorkerSettings, judge: Judge | None) -> int:
    if judge is not None:
        return judge.settings.batch_size
    if role != "generate":
        return 1
    return MOST_AT_ONCE if workers.max_batch == "auto" else workers.max_batch
