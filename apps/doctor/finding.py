"""One thing that was looked at, and how it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["ok", "note", "problem"]
"""`note`: runs work, and something is worth knowing; `problem`: it would stop a run."""


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        name: of what was looked at.
        text: how it is, in a sentence.
        advice: what to do about it; empty where there is nothing to do.
        facts: the same as values, for programs.
    """

    level: Level
    name: str
    text: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
