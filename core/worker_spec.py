"""Everything a worker is born knowing. Pickled once into the new process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from core.index_files import MODEL_INDEX, PIPELINE_INDEX
from core.memory_modes import FACTS, PACKAGES, Mode
from core.model_lora import ModelLora
from core.model_settings import Dtype
from core.settings import Compile, SimulatedSettings, StepCache
from core.tasks import ROLES

if TYPE_CHECKING:
    from core.judge import Judge

Role = str
"""The kind of task that a worker serves; see `core.tasks.ROLES`."""


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
        saved_with: optional packages that the model's weights are of; None if that is unknown, as
            of a hub's model that is not here yet.
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
    judge: "Judge | None" = None
    variant: str | None = None
    memory: Mode = "full"
    base_model: str | None = None
    base_identity: str | None = None
    model_loras: tuple[ModelLora, ...] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    sharers: int = 1
    memory_share: int = 0
    saved_with: frozenset[str] | None = frozenset()

    @property
    def packages(self) -> frozenset[str]:
        """Optional packages that it has to import; others are hidden from it."""
        of_mode = FACTS[self.memory].package
        saved_with = frozenset(PACKAGES) if self.saved_with is None else self.saved_with
        return saved_with | {of_mode} if of_mode else saved_with

    def with_paths(self, change: Callable[[str], str]) -> "WorkerSpec":
        """A copy with `change` applied to every path."""
        loras = tuple(replace(lora, path=change(lora.path)) for lora in self.model_loras)
        base = None if self.base_model is None else change(self.base_model)
        return replace(self, model=change(self.model), base_model=base, model_loras=loras)

    def fetched_to(self, folder: str) -> "WorkerSpec":
        """A copy that finds the hub's part of the model in a folder of this machine."""
        part = "model" if self.base_model is None else "base_model"
        return replace(self, revision=None, **{part: folder})  # type: ignore[arg-type]

    @property
    def index_file(self) -> str:
        """A file that every model of its role's kind has."""
        return PIPELINE_INDEX if ROLES[self.role].of_pipelines else MODEL_INDEX

    @property
    def source(self) -> str:
        """Hub id or folder of the model, or of the base model where one part is in a file."""
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
        """Whether the first task may have to wait for a compiler (`workers.compilation`)."""
        return self.compile == "always"
