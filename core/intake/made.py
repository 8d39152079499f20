"""How a result was made, as it says itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.checkpoints.model_loras import identities_in
from core.memory_modes import ALL_WEIGHTS_AS_THEY_ARE
from core.model_identity import BACKEND, LOADED, Identity


def text_of(task: Mapping[str, Any]) -> str | None:
    """A task's prompt or instruction."""
    text = task.get("prompt", task.get("instruction"))
    return text if isinstance(text, str) else None


@dataclass(frozen=True)
class Made:
    """How a result was made, as far as it says so.

    Attributes:
        loras_sha256: content hashes of the task's `loras`.
        files: content hashes of the pictures that it was made from.
    """

    task: Mapping[str, Any]
    used: Mapping[str, Any]
    lora_sha256: str | None
    files: list[str]
    fingerprint: str
    loras_sha256: tuple[str, ...] = ()

    @classmethod
    def said_by(cls, provenance: Mapping[str, Any]) -> "Made":
        """Read how a result was made from what it says, which may be anything."""
        task, used, lora, loras, files = (
            provenance.get(name)
            for name in ("task", "used", "lora_sha256", "loras_sha256", "files")
        )
        return cls(
            task if isinstance(task, dict) else {},
            used if isinstance(used, dict) else {},
            lora if isinstance(lora, str) else None,
            _texts(files),
            str(provenance.get("fingerprint")),
            tuple(_texts(loras)),
        )

    @property
    def text(self) -> str | None:
        """Prompt or instruction."""
        return text_of(self.task)

    @property
    def model(self) -> str | None:
        """The model's identity."""
        name, content = self.used.get("model"), self.used.get("model_hash")
        if not isinstance(name, str):
            return None
        return f"{name}#{content}" if isinstance(content, str) else name

    @property
    def identity(self) -> Identity | None:
        """The model with its own LoRAs and noise schedule."""
        model, loras = self.model, self.used.get("model_loras")
        scheduler, backend = self.used.get("scheduler"), self.used.get(BACKEND)
        if model is None:
            return None
        return Identity(
            model,
            self.beside_model,
            loras=tuple(identities_in(loras if isinstance(loras, list) else [])),
            scheduler=scheduler if isinstance(scheduler, dict) else {},
            backend=backend if isinstance(backend, str) else None,
        )

    @property
    def lora_names(self) -> dict[str, str]:
        """What it calls the model's own LoRAs, by their identities."""
        loras = self.used.get("model_loras")
        named = [x for x in loras if isinstance(x, dict)] if isinstance(loras, list) else []
        return {key: str(x.get("name")) for x in named for key in identities_in([x])}

    @property
    def beside_model(self) -> dict[str, str]:
        """Settings beside the model that it says, where they change its pixels."""
        said = {key: value for key in LOADED if isinstance(value := self.used.get(key), str)}
        if said.get("memory") in ALL_WEIGHTS_AS_THEY_ARE:
            del said["memory"]
        return said


def _texts(found: Any) -> list[str]:
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []
