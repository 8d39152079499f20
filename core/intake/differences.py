"""Differences between a task and the one that a result was made for: fields, LoRAs, pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from core.intake.admission import Admitted
from core.intake.made import Made
from core.intake.task_kinds import undeciding_fields
from core.lora_paths import file_or_folder
from core.lora_stack import CheckedLora, counting, hashes_of
from core.tasks import Task, fields_of, paths_in

TEXTS = ("prompt", "negative_prompt", "instruction")  # too long for a line: only counted
_WORDS = {  # of fields that have other names in files than in tasks
    "num_inference_steps": "steps",
    "negative_prompt": "negative prompt",
    "lora_strength": "LoRA strength",
    "picture_quality": "quality of the file",
}
_PICTURES = {
    "source_images": "source picture",
    "mask": "mask",
    "edited_image": "edited picture",
    "target_images": "picture of a right result",
    "reference_images": "reference picture",
}
_APART = {"width", "height", "lora_strength"}  # not compared field by field


@dataclass(frozen=True)
class Change:
    """One difference; `values` are before and after, or None where they are not shown.

    Attributes:
        of_the_maker: it is the same for all of a run.
    """

    what: str
    values: tuple[str, str] | None = None
    of_the_maker: bool = False


def of_fields(admitted: Admitted, before: Task, made: Made) -> list[Change]:
    """Differences of settings; where the old task left one to the model, what the model took."""
    found = []
    after, apart = fields_of(admitted.task), _APART | undeciding_fields(type(before))
    for name, old in fields_of(before).items():
        if name in apart or old == after[name]:
            continue
        values = _told_apart_from_default(old, made.used.get(name), after[name])
        found.append(Change(_WORDS.get(name, name), None if name in TEXTS else values))
    if _sides(before) != _sides(admitted.task):
        sizes = _size(before, made.used), _size(admitted.task, {})
        found.append(Change("size", sizes if sizes[0] != sizes[1] else (_shown(None), sizes[1])))
    return found


def _of_lora(admitted: Admitted, made: Made) -> list[Change]:
    path = getattr(admitted.task, "lora_path", None)
    before, after = _lora_name(made.task.get("lora_path")), _lora_name(path)
    if made.lora_sha256 != admitted.lora_sha256:
        if before == after:
            return [Change(f"content of {after}")]
        return [Change("LoRA", (before, after))]
    strengths = made.task.get("lora_strength"), getattr(admitted.task, "lora_strength", 1.0)
    if admitted.lora_sha256 is not None and strengths[0] != strengths[1]:
        return [Change("LoRA strength", (_shown(strengths[0]), _shown(strengths[1])))]
    return []


def of_loras(admitted: Admitted, task: Task, made: Made) -> list[Change]:
    """Differences of LoRAs; of stacks only those that take part in the pictures are compared."""
    if not getattr(admitted.task, "loras", ()) and not getattr(task, "loras", ()):
        return _of_lora(admitted, made)
    hashes = hashes_of(made.lora_sha256, made.loras_sha256)
    if len(hashes) != len(task.lora_stack):  # what it says does not go together
        return [Change("LoRA")]
    before, after = (
        {lora.sha256: lora for lora in s} for s in (counting(task, hashes), admitted.loras)
    )
    if before.keys() != after.keys():
        old_names, new_names = _names(before.values()), _names(after.values())
        if old_names == new_names:
            others = [after[sha256] for sha256 in after.keys() - before.keys()]
            return [Change(f"content of {_names(others)}")]
        return [Change("LoRA", (old_names, new_names))]
    return [
        Change(
            f"strength of {_lora_name(new.path)}",
            (_shown(old.strength), _shown(new.strength)),
        )
        for old, new in zip(before.values(), after.values(), strict=True)
        if old.strength != new.strength
    ]


def _names(loras: Iterable[CheckedLora]) -> str:
    return " + ".join(sorted(_lora_name(lora.path) for lora in loras)) or "none"


def of_files(admitted: Admitted, task: Task, made: Made) -> list[Change]:
    """Differences of the pictures that a task reads, by the fields that name them."""
    now = list(admitted.contents.pictures.values())
    before, after = _contents(task, made.files), _contents(admitted.task, now)
    if before is None or after is None:  # what it says does not go together
        return [] if made.files == now else [Change("pictures that it is made from")]
    return [Change(_PICTURES.get(name, name)) for name in after if before[name] != after[name]]


def _contents(task: Task, hashes: Sequence[str]) -> dict[str, list[str]] | None:
    """Content hashes of a task's pictures by field; None if these are not as many.

    Args:
        hashes: of all its pictures. One that several fields name is there once.
    """
    paths = {name: paths_in(getattr(task, name)) for name in task.picture_fields}
    every = dict.fromkeys(chain.from_iterable(paths.values()))
    if len(every) != len(hashes):
        return None
    content = dict(zip(every, hashes, strict=True))
    return {name: [content[path] for path in some] for name, some in paths.items()}


def _sides(task: Task) -> tuple[int | None, int | None]:
    return getattr(task, "width", None), getattr(task, "height", None)


def _size(task: Task, used: Mapping[str, Any]) -> str:
    width, height = (
        used.get(name) if given is None else given
        for name, given in zip(("width", "height"), _sides(task), strict=True)
    )
    return "default" if width is None and height is None else f"{_shown(width)}x{_shown(height)}"


def _lora_name(path: Any) -> str:
    return file_or_folder(path) if isinstance(path, str) and path else "none"


def _told_apart_from_default(before: Any, used: Any, after: Any) -> tuple[str, str]:
    """What the model took counts as before, unless it is just what is asked for now."""
    shown = _shown(used if before is None else before), _shown(after)
    return shown if shown[0] != shown[1] else (_shown(before), shown[1])


def _shown(value: Any) -> str:
    if value is None:
        return "default"
    return f"{value:.12g}" if isinstance(value, float) else str(value)
