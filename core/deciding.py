"""What decides a run's pictures beside their tasks, in one string: the model, then settings.

`demo-model#0123456789abcdef variant=fp16 memory=nf4 flash`: the model's identity, `key=value` for
what is not as usual, and last, without a key as in the first versions, the attention's backend. The
string is part of every fingerprint, so what stands in it, and in which order, may not change.
"""

import re
from dataclasses import dataclass, field

from core.memory_modes import Mode, changes_pixels

BACKEND = "attention_backend"
FIRST = ("variant", "memory")
"""Keys that come first, in this order; results record them under the same names."""

_TEXT = re.compile(r"(.*#[0-9a-f]{16}|\S+)(?: (.*))?", re.DOTALL)  # folders' names may hold spaces


def loaded_as(variant: str | None, memory: Mode) -> dict[str, str]:
    """How a model is loaded, where that is not as usual: results say so."""
    told = {"variant": variant, "memory": None if memory == "full" else memory}
    return {key: value for key, value in told.items() if value is not None}


@dataclass(frozen=True)
class Deciding:
    """The string, taken apart."""

    identity: str
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_model(cls, identity: str, variant: str | None, memory: Mode) -> "Deciding":
        """A model, with all about how it is loaded that changes its pictures."""
        return cls(identity, loaded_as(variant, memory if changes_pixels(memory) else "full"))

    @classmethod
    def read(cls, text: str) -> "Deciding":
        found = _TEXT.fullmatch(text)
        if found is None:
            return cls(text)
        settings = {}
        for piece in (found[2] or "").split():
            key, equals, value = piece.partition("=")
            settings[key if equals else BACKEND] = value if equals else piece
        return cls(found[1], settings)

    def __str__(self) -> str:
        keys = [key for key in self.settings if key not in (*FIRST, BACKEND)]
        keys = [key for key in FIRST if key in self.settings] + keys
        pieces = [f"{key}={self.settings[key]}" for key in keys]
        if BACKEND in self.settings:
            pieces.append(self.settings[BACKEND])
        return " ".join([self.identity, *pieces])
