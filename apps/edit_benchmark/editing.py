"""How the edits of a run were made: the editor with all its settings that decide a picture."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.lora_paths import file_or_folder
from core.lora_stack import hashes_of
from core.noise_schedule import as_identity

_MAX_VALUES = 5  # of a setting, that are listed one by one
_MOST_SHOWN = 40  # characters of a text in the table's line

# Of a task, and of what the model says that it used; the order is that of the table's line.
SETTINGS = (
    "num_inference_steps", "guidance_scale", "true_cfg_scale", "negative_prompt", "width",
    "height", "working_area", "condition_area", "sampler",
)  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """A finished edit.

    Attributes:
        task: its fields, as the ledger has them.
        used: what the model said that it used.
        lora_sha256: of the LoRA's content, if it has one.
        loras_sha256: of the contents of its `loras`, if it has several.
    """

    task: Mapping[str, Any]
    used: Mapping[str, Any]
    lora_sha256: str | None = None
    loras_sha256: tuple[str, ...] = ()

    @property
    def loras(self) -> list[tuple[str, str, float]]:
        """Name, content hash and strength of each of its LoRAs."""
        stack = self.task.get("loras") or [
            {"path": self.task.get("lora_path"), "strength": self.task.get("lora_strength", 1.0)}
        ]
        hashes = hashes_of(self.lora_sha256, self.loras_sha256)
        return [
            (file_or_folder(str(lora["path"])), sha256, float(lora["strength"]))
            for lora, sha256 in zip(stack, hashes, strict=False)
        ]


@dataclass(frozen=True)
class EditedBy:
    """The editor of a table.

    Attributes:
        model: its identity, or where edits are from that were there already; all else is unknown
            of these.
        dtype: as set; auto is bfloat16 on a GPU and float32 on a CPU.
        seed: the base seed; to it each pair's own number is added.
        workers: how its workers load and compute, where not as usual: memory mode, attention.
        settings: by name the value that all edits have, or `{"different": how many, …}` with
            the lowest and the highest number, or with the first few texts.
        loras: name, content hash, strength, and the number of edits that were made with it.
        model_loras: name, content hash and strength of those that every edit is made with.
        scheduler: settings over those of the model's own scheduler.
    """

    model: str
    dtype: str = ""
    seed: int | None = None
    workers: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    loras: list[dict[str, Any]] = field(default_factory=list)
    model_loras: list[dict[str, Any]] = field(default_factory=list)
    scheduler: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """All of it in one line."""
        if self.seed is None:
            return self.model
        parts = [self.model]
        parts += [f"model LoRA {_lora_shown(lora)}" for lora in self.model_loras]
        if self.scheduler:
            parts.append(f"scheduler {as_identity(self.scheduler)}")
        for name, value in {**self.settings, "dtype": self.dtype, **self.workers}.items():
            parts.append(f"{name} {_shown(value)}")
        for lora in self.loras:
            parts.append(f"LoRA {_lora_shown(lora)} ({lora['edits']} edits)")
        return ", ".join([*parts, f"seed {self.seed}"])


def settings_of(edits: Sequence[Edit]) -> dict[str, Any]:
    """Each setting that any edit has, with its value or its range."""
    found: dict[str, Any] = {}
    for name in SETTINGS:
        # What the model really took, where it says so, before what it was asked for.
        values = [edit.used.get(name, edit.task.get(name)) for edit in edits]
        if any(value is not None for value in values):
            found[name] = _in_short(values)
    return found


def loras_of(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """The LoRAs of the edits, in the order in which they first appear."""
    counts: dict[tuple[str, str, float], int] = {}
    for edit in edits:
        for key in edit.loras:
            counts[key] = counts.get(key, 0) + 1
    return [
        {"name": name, "sha256": sha256, "strength": strength, "edits": edits_}
        for (name, sha256, strength), edits_ in counts.items()
    ]


def _lora_shown(lora: Mapping[str, Any]) -> str:
    return f"{lora['name']} #{str(lora['sha256'])[:8]} at {lora['strength']:g}"


def _in_short(values: Sequence[Any]) -> Any:
    different = list(dict.fromkeys(values))
    if len(different) == 1:
        return different[0]
    known = [value for value in different if value is not None]
    short: dict[str, Any] = {"different": len(different)}
    if all(isinstance(value, int | float) for value in known):
        short |= {"lowest": min(known), "highest": max(known)}
    else:
        short["values"] = known[:_MAX_VALUES]
    if len(known) < len(different):
        short["without"] = sum(value is None for value in values)
    return short


def _shown(value: Any) -> str:
    if isinstance(value, str):
        short = value if len(value) <= _MOST_SHOWN else value[: _MOST_SHOWN - 1] + "…"
        return short if re.fullmatch(r"[\w.-]+", short) else repr(short)
    if not isinstance(value, dict):
        return str(value)
    if "lowest" in value:
        return f"{value['lowest']} to {value['highest']}"
    return f"of {value['different']} kinds"
