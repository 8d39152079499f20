"""The small interface that every model family stands behind."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL.Image import Image

from core.messages import Lease
from workers.lora_manager import LoraCounts

Log = Callable[[str, str], None]
"""Log a line in main: level and text."""


@dataclass(frozen=True)
class Picture:
    """A finished picture and the settings that were really used, for its provenance."""

    image: Image
    used: dict[str, Any] = field(default_factory=dict)


class ModelFamily(ABC):
    """One loaded model on one device. Methods raise whatever breaks; the caller classifies."""

    @abstractmethod
    def device_identity(self) -> tuple[str, str]:
        """Name and UUID of the device."""

    @abstractmethod
    def load(self) -> str:
        """Bring the model to the device; returns the name of its class."""

    @abstractmethod
    def generate(self, lease: Lease) -> Picture:
        """Draw one picture."""

    def resident_loras(self) -> list[str]:
        """Content hashes of the LoRAs that are in memory."""
        return []

    def take_lora_counts(self) -> LoraCounts:
        """LoRA loads and switches since the last call."""
        return LoraCounts()

    def free_memory(self) -> str:
        """Give back what can be given back after an out-of-memory error; says what it did."""
        return "trying again"
