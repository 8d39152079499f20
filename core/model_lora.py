"""A LoRA that belongs to a model: every picture of a run is drawn with it."""

from dataclasses import dataclass
from typing import Any

HASH_DIGITS = 16  # of a LoRA's content, in identities


@dataclass(frozen=True)
class ModelLora:
    """A LoRA of the model.

    Attributes:
        path: the file.
        name: what logs and pictures call it: its file's name; of PEFT, the folder's.
        strength: 1.0 is the LoRA as trained.
    """

    path: str
    name: str
    sha256: str
    strength: float

    @property
    def identity(self) -> str:
        """All about it that decides a picture."""
        return lora_identity(self.sha256, self.strength)

    @property
    def shown(self) -> str:
        """The LoRA and its strength as text for the log."""
        return f"{self.name} at {self.strength:g}"

    @property
    def record(self) -> dict[str, Any]:
        """What a picture says of it."""
        return {"name": self.name, "sha256": self.sha256, "strength": self.strength}


def lora_identity(sha256: str, strength: float) -> str:
    return f"{sha256[:HASH_DIGITS]}@{float(strength)!r}"
