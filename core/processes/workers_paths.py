"""The paths of a lease as a worker with another encoding of file names has to be given them."""

from dataclasses import replace
from typing import Any

from core.messages import Lease
from core.paths import for_worker, user_path
from core.tasks import EditTask, GenerateTask, ScoreTask


def with_workers_paths(lease: Lease) -> Lease:
    """Name a lease's files for a process with another encoding of file names."""

    def named(path: str) -> str:
        return for_worker(str(user_path(path, "path")))

    changed: dict[str, Any] = {}
    task = lease.task
    if isinstance(task, GenerateTask | EditTask) and task.lora_path:
        changed["lora_path"] = named(task.lora_path)
    if isinstance(task, GenerateTask | EditTask) and task.loras:
        changed["loras"] = tuple(replace(lora, path=named(lora.path)) for lora in task.loras)
    if isinstance(task, EditTask | ScoreTask):
        changed["source_images"] = tuple(map(named, task.source_images))
    if isinstance(task, ScoreTask):
        changed["edited_image"] = named(task.edited_image)
    return replace(
        lease,
        task=replace(task, **changed),
        partial_path=for_worker(lease.partial_path),
        files={named(path): sha256 for path, sha256 in lease.files.items()},
    )
