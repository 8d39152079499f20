"""The LoRAs of a task once they are found: one, or a stack whose changes of the model add up.

A task that has just one says so in `lora_path`, however it was given, so that it stays the task
that it always was. What counts is in the order of content hashes: sums round differently in
another order, and the order in which LoRAs are given shall decide no pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.tasks import Lora, Task


@dataclass(frozen=True)
class CheckedLora:
    """A LoRA that takes part in a picture: its content, where it lies, and how much of it."""

    sha256: str
    path: str
    strength: float


def fields_for(stack: Sequence[Lora]) -> dict[str, Any]:
    """The fields of a task that has these LoRAs, one at least."""
    if len(stack) > 1:
        return {"lora_path": None, "lora_strength": 1.0, "loras": tuple(stack)}
    [one] = stack
    return {"lora_path": one.path, "lora_strength": one.strength, "loras": ()}


def hashes_of(one: str | None, several: Sequence[str]) -> tuple[str, ...]:
    """The content hashes of a task's LoRAs, in its order.

    Args:
        one: of `lora_path`.
        several: of `loras`.
    """
    return tuple(several) or ((one,) if one is not None else ())


def counting(task: Task, hashes: Sequence[str]) -> tuple[CheckedLora, ...]:
    """LoRAs whose strength is not zero, in the order in which they are applied."""
    found = [
        CheckedLora(sha256, lora.path, lora.strength)
        for lora, sha256 in zip(task.lora_stack, hashes, strict=True)
        if lora.strength != 0
    ]
    return tuple(sorted(found, key=lambda lora: lora.sha256))
