"""Identity of a loaded model: all about it that decides pictures, as one text in fingerprints.

`name#hash variant=fp16 lora=0123456789abcdef@1.0 scheduler={"shift":1.0} sage`: the model, how it
is loaded, LoRAs that belong to it, changes of its noise schedule, and last the attention's backend.
What is as usual is left out.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from core.memory_modes import Mode
from core.noise_schedule import as_identity

LORA, SCHEDULER, BACKEND, BASE = "lora", "scheduler", "attention_backend", "base_model"
LOADED = ("variant", "memory", BASE, "step_cache")
"""Keys that come first, in this order; results record them under the same names."""
_PART = re.compile(r"([a-z_]+)=(\S+)")
_BACKEND_NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Identity:
    """What decides the pictures of a loaded model, in parts.

    Attributes:
        model: name and hash of its weights.
        others: such as variant and memory mode.
        loras: identities of the model's own LoRAs.
        scheduler: settings over the checkpoint's.
        backend: of the attention; None for diffusers' own choice.
    """

    model: str
    others: Mapping[str, str] = field(default_factory=dict)
    loras: tuple[str, ...] = ()
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    backend: str | None = None

    @property
    def beside(self) -> dict[str, str]:
        """All that is said by a key and one value."""
        return {**self.others, **({BACKEND: self.backend} if self.backend else {})}

    def __str__(self) -> str:
        parts = [self.model, *(f"{name}={value}" for name, value in self.others.items())]
        parts += [f"{LORA}={lora}" for lora in self.loras]
        if self.scheduler:
            parts.append(f"{SCHEDULER}={as_identity(self.scheduler)}")
        return " ".join([*parts, self.backend] if self.backend else parts)

    @classmethod
    def read(cls, text: str) -> "Identity":
        """The inverse of `str`; a model's name may hold spaces."""
        words, backend = text.split(" "), None
        parts: list[tuple[str, str]] = []
        while len(words) > 1:
            if found := _PART.fullmatch(words[-1]):
                parts.insert(0, (found[1], found[2]))
            elif backend is None and _BACKEND_NAME.fullmatch(words[-1]):
                backend = words[-1]
            else:
                break
            words.pop()
        others = {name: value for name, value in parts if name not in (LORA, SCHEDULER)}
        loras = tuple(value for name, value in parts if name == LORA)
        scheduler: Any = {}
        with suppress(ValueError, RecursionError):  # a name may look like anything
            scheduler = json.loads(dict(parts).get(SCHEDULER, "{}"))
        settings = scheduler if isinstance(scheduler, dict) else {}
        identity = cls(" ".join(words), others, loras, settings, backend)
        return identity if str(identity) == text else cls(text)


def loaded_as(variant: str | None, memory: Mode) -> dict[str, str]:
    """How a model is loaded, where that is not as usual: results say so."""
    told = {"variant": variant, "memory": None if memory == "full" else memory}
    return {key: value for key, value in told.items() if value is not None}
