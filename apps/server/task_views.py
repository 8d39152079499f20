"""Tasks as callers see them: what they asked for, as they may ask for it again."""

from collections.abc import Mapping
from typing import Any

from apps.server.records import kind_of
from apps.server.sources import picture_fields
from core.lora_paths import name_of

OF_THE_DAEMON = ("output_path", "task_id", "seed_is_random", "previews")


def task_view(job: str, position: int, task: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task, which `POST /v1/jobs` takes as they are; no path of this machine."""
    view = {"kind": kind_of(task), **task}
    for name in OF_THE_DAEMON:
        view.pop(name, None)
    place = 0
    for name in picture_fields(task):
        if isinstance(task[name], str):
            view[name] = source_reference(job, position, place)
            place += 1
        else:
            view[name] = [
                source_reference(job, position, place + n) for n in range(len(task[name]))
            ]
            place += len(task[name])
    if view.get("lora_path"):
        view["lora_path"] = name_of(view["lora_path"])
    if view.get("loras"):
        view["loras"] = [{**lora, "path": name_of(lora["path"])} for lora in view["loras"]]
    return view


def source_reference(job: str, position: int, place: int) -> str:
    """What a caller calls the n-th picture that a task reads."""
    return f"{job}/{position}/sources/{place}"
