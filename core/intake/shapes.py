"""What the pictures of a large input ask of a device's memory, before each of them is checked."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from core.errors import InputError
from core.intake.task_kinds import TaskInput, TaskKind
from core.tasks import Task, fields_of

# What a task is named, and what it draws, takes the same memory whatever it is.
_NO_MATTER = {
    "prompt",
    "negative_prompt",
    "seed",
    "output_path",
    "task_id",
    "metadata",
    "picture_quality",
}


def shapes_of(kind: TaskKind[Any], inputs: Iterable[TaskInput]) -> list[Task]:
    """One task for each set of sizes, guidance and LoRAs that some input asks for."""
    found: dict[Hashable, Task] = {}
    for given in inputs:
        shape = _shape(given)
        if shape is not None and shape not in found:
            try:
                found[shape], _ = kind.complete(kind.parse(given))  # type: ignore[arg-type]
            except (InputError, RecursionError):  # admission will say so
                continue
    return list(found.values())


def _shape(given: TaskInput) -> Hashable | None:
    if isinstance(given, InputError):
        return None
    try:
        fields = given if isinstance(given, Mapping) else fields_of(given)
        return tuple((k, repr(v)) for k, v in fields.items() if k not in _NO_MATTER)
    except (TypeError, RecursionError):
        return None
