"""The small interface that every model family stands behind."""

import gc
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import Image

from core.errors import LoraError
from core.messages import Keep, Lease
from core.model_identity import BACKEND, BASE, loaded_as
from core.store.provenance import encode_picture, record
from core.worker_spec import WorkerSpec
from workers.lora_manager import LoraCounts
from workers.previews import TellPreview
from workers.steps import TellSteps

Log = Callable[[str, str], None]
"""Log a line in main: level and text."""


@dataclass(frozen=True)
class Product(ABC):
    """A finished result.

    Attributes:
        used: the settings that were really used, for its provenance.
        remarks: what the user should know of it, such as where its prompt was cut.
    """

    used: dict[str, Any]
    remarks: tuple[str, ...] = field(default=(), kw_only=True)

    @abstractmethod
    def encode(self, lease: Lease) -> bytes:
        """The content of the result's file."""


@dataclass(frozen=True)
class Picture(Product):
    """A picture file with its provenance."""

    image: Image

    def encode(self, lease: Lease) -> bytes:
        return encode_picture(self.image, lease, self.used)


@dataclass(frozen=True)
class Verdict(Product):
    """Scores; `used` holds them, `details` what the judge said."""

    details: dict[str, Any]

    def encode(self, lease: Lease) -> bytes:
        content = {**record(lease, self.used), **self.details}
        text = json.dumps(content, ensure_ascii=False, indent=1)
        return text.encode("utf-8", "backslashreplace")  # halves of characters: JSON's own escape


def model_settings(spec: WorkerSpec) -> dict[str, Any]:
    """What a picture says of how the model is loaded and computes, and of what belongs to it."""
    used: dict[str, Any] = dict(loaded_as(spec.variant, spec.memory))
    if spec.base_identity is not None:
        used[BASE] = spec.base_identity
    if spec.step_cache is not None:
        used["step_cache"] = str(spec.step_cache)
    if spec.attention_backend != "auto":
        used[BACKEND] = spec.attention_backend
    if spec.model_loras:
        used["model_loras"] = [lora.record for lora in spec.model_loras]
    if spec.scheduler:
        used["scheduler"] = dict(spec.scheduler)
    return used


class ModelFamily(ABC):
    """One loaded model on one device. Methods raise whatever breaks; the caller classifies."""

    spec: WorkerSpec

    def model_is_at(self, folder: str) -> None:
        """Load from there: what a hub's model was fetched to."""
        self.spec = self.spec.fetched_to(folder)

    @abstractmethod
    def device_identity(self) -> tuple[str, str]:
        """Name and UUID of the device."""

    def before_compiling(self, tell: Callable[[], None]) -> None:
        """Call `tell` before whatever has to be compiled first, which takes a while."""
        del tell  # most models are not compiled

    def on_steps(self, tell: TellSteps) -> None:
        """Call `tell` after every step of what runs, if there are any."""
        del tell

    def on_previews(self, tell: TellPreview) -> None:
        """Call `tell` with the previews that leases ask for, where a picture is drawn in steps."""
        del tell

    @abstractmethod
    def load(self) -> str:
        """Bring the model to the device; returns the name of its class."""

    @abstractmethod
    def run(self, leases: Sequence[Lease]) -> list[Product]:
        """One result per lease; several only if the spec's group size allows them."""

    def resident_loras(self) -> list[str]:
        """Content hashes of the LoRAs that are in memory."""
        return []

    def take_lora_counts(self) -> LoraCounts:
        """LoRA loads and switches since the last call."""
        return LoraCounts()

    def keep_lora(self, order: Keep) -> None:
        """Hold a LoRA before a task asks for it, or hold it no more; between two tasks.

        Raises:
            LoraError: it does not fit the model, or the model takes none.
        """
        raise LoraError(f"{type(self).__name__} takes no LoRAs.")

    def too_many(self) -> None:
        """Note that so many leases at once did not fit into memory; fewer follow."""
        gc.collect()

    def free_memory(self, failures: int = 1) -> str | None:
        """Make another try more likely to fit after an out-of-memory error.

        Args:
            failures: of this task in a row, this one included.

        Returns:
            What it did; None if nothing is left to do.
        """
        return "trying again" if failures == 1 else None
