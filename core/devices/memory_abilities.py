"""Which memory modes a machine's GPUs, packages and the model's role allow, whatever fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.checkpoints.single_file import GGUF
from core.devices.device import Device
from core.devices.host_memory import free_host_memory
from core.memory_modes import FACTS, PACKAGES, Memory, Mode, fp8_mode, installed
from core.model_settings import Dtype
from core.tasks import ROLES

Form = Literal["parts", "file", "gguf", "clip"]
"""A model's: component by component, in one file, such a file of GGUF; or a judge that embeds."""


def form_of_file(path: str) -> Form:
    """Form of a model in one file, by the file's ending."""
    return "gguf" if path.lower().endswith(GGUF) else "file"


def allows(form: Form, mode: Mode) -> bool:
    """Whether a model of such a form can be loaded in a mode, on whatever machine."""
    match form:
        case "gguf":
            return mode in ("full", "offload")
        case "file":
            return FACTS[mode].package is None
        case "clip":
            return FACTS[mode].weight_bytes is None
        case "parts":
            return True


@dataclass(frozen=True)
class Abilities:
    """What decides about modes beside GPU memory.

    Attributes:
        role: of the model: generate, edit or score.
        dtype: as set.
        capabilities: CUDA's compute capability of every device; None for a CPU, or where unknown.
        packages: installed, of those that modes need.
        host_free: bytes of host memory.
        gpus: of one worker; over several the model is spread whole.
        form: of the model.
    """

    role: str
    dtype: Dtype
    capabilities: tuple[tuple[int, int] | None, ...]
    packages: frozenset[str]
    host_free: int
    gpus: int = 1
    form: Form = "parts"

    @classmethod
    def here(
        cls, devices: Sequence[Device], role: str, dtype: Dtype, form: Form = "parts"
    ) -> "Abilities":
        packages = frozenset(name for name in PACKAGES if installed(name))
        capabilities = tuple(device.capability for device in devices)
        gpus = max(device.count for device in devices)
        return cls(role, dtype, capabilities, packages, free_host_memory(), gpus, form)

    def can(self, mode: Mode) -> bool:
        """Whether a mode can be used: by its package, by every GPU, and in this role."""
        facts = FACTS[mode]
        if self.gpus > 1 and mode != "full":
            return False
        if not allows(self.form, mode):
            return False
        if not ROLES[self.role].of_pipelines and facts.held == "a component":
            return False
        if facts.package is not None and facts.package not in self.packages:
            return False
        least = facts.capability
        return least == (0, 0) or all(c is not None and c >= least for c in self.capabilities)

    @property
    def fp8(self) -> Mode:
        """The memory mode that the setting `fp8` stands for on these GPUs."""
        mode = fp8_mode(self.dtype, list(self.capabilities))
        return mode if self.can(mode) else "fp8_cast"

    def mode_of(self, memory: Memory) -> Mode:
        """The mode that a setting names; for `auto` the first."""
        if memory == "auto":
            return "full"
        return self.fp8 if memory == "fp8" else memory

    def modes(self) -> list[Mode]:
        """Modes that `auto` may choose from, the preferred one first."""
        not_fp8 = "fp8_cast" if self.fp8 == "fp8" else "fp8"
        return [mode for mode in FACTS if mode != not_fp8 and self.can(mode)]
