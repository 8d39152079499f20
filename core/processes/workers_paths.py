"""The paths of a message as a worker with another encoding of file names has to be given them."""

from dataclasses import replace
from typing import Any

from core.messages import Keep, Lease, ToWorker
from core.paths import for_worker, user_path
from core.tasks import EditTask, GenerateTask, ScoreTask


def with_workers_paths(message: ToWorker) -> ToWorker:
    """Name a message's files for a process with another encoding of file names."""
    if isinstance(message, Keep):
        return replace(message, path=_named(message.path))
    if isinstance(message, Lease):
        return _of_lease(message)
    return message


def _named(path: str) -> str:
    return for_worker(str(user_path(path, "path")))


def _of_lease(lease: Lease) -> Lease:
    changed: dict[str, Any] = {}
    task = lease.task
    if isinstance(task, GenerateTask | EditTask) and task.lora_path:
        changed["lora_path"] = _named(task.lora_path)
    if isinstance(task, GenerateTask | EditTask) and task.loras:
        changed["loras"] = tuple(replace(lora, path=_named(lora.path)) for lora in task.loras)
    if isinstance(task, EditTask | ScoreTask):
        changed["source_images"] = tuple(map(_named, task.source_images))
    if isinstance(task, ScoreTask):
        changed["edited_image"] = _named(task.edited_image)
    return replace(
        lease,
        task=replace(task, **changed),
        partial_path=for_worker(lease.partial_path),
        places={for_worker(a): for_worker(b) for a, b in lease.places.items()},
        files={_named(path): sha256 for path, sha256 in lease.files.items()},
    )
