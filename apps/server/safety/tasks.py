"""Tasks as callers write them, with each name of a file exchanged for a file of the daemon."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, cast

from apps.server.errors import bad_value
from apps.server.inbox import Inbox
from apps.server.loras import Loras
from core.errors import InputError
from core.intake.task_kinds import kind_asked_for
from core.tasks import GenerateTask, Task, paths_in, task_to_json, with_paths


async def contained(
    given: Mapping[str, Any], caller: str, inbox: Inbox, loras: Loras, param: str
) -> dict[str, Any]:
    """A task that reads nothing but the caller's pictures and the LoRAs that are offered.

    It is read as the engine reads it, other spellings included, so that no field is missed.

    Args:
        param: where the task stands in the request, such as `tasks[3]`.

    Returns:
        Its `kind` and the fields that were given, for the engine.

    Raises:
        ApiError: 400: it is no task, names a file of its own, or one that is not there.
    """
    try:
        kind, asked = kind_asked_for(given, GenerateTask)
        task: Task = kind().parse(cast("Mapping[str, Any]", asked))
    except InputError as error:
        raise bad_value(param, f"{param}: {error}") from None
    if task.output_path is not None:
        raise bad_value(
            f"{param}.output_path", f"{param}.output_path: the server says where results lie."
        )
    own = {lora.path: loras.resolve(lora.path, f"{param}.loras") for lora in task.lora_stack}
    for name in task.picture_fields:
        for reference in paths_in(getattr(task, name)):
            own[reference] = await inbox.resolve(caller, reference, f"{param}.{name}")
    return _said(with_paths(task, own.__getitem__))


def _said(task: Task) -> dict[str, Any]:
    """The task without what it leaves open."""
    usual = {f.name: _usual(f) for f in fields(cast(Any, task))}
    data = task_to_json(task)
    return {name: value for name, value in data.items() if value != usual.get(name, MISSING)}


def _usual(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
