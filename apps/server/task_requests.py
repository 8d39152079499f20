"""Checks the tasks of a job one by one, and makes them tasks of the engine.

A task that cannot be used fails alone. What names a file of the machine is never taken from a
caller: pictures are sent, named by an id or taken from the caller's jobs, LoRAs have names.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Protocol, cast

from pydantic import TypeAdapter

from apps.server.document import in_one_piece
from apps.server.errors import ApiError
from core.errors import InputError, MultiGPUError
from core.intake.task_kinds import KINDS, TaskKind, kind_asked_for
from core.paths import printable
from core.seeds import RANDOM, random_seed, seed_of_task
from core.store.outputs import PICTURE_SUFFIXES
from core.tasks import GenerateTask, Task, paths_in, task_to_json
from core.validation import shown
from core.worker_spec import Role

OWN_NAMES = (
    "output_path: results of this server have names of its own; fetch each by its `url`. Leave "
    "it out."
)
MOST_OUTLINED = 1000  # characters of the prompt of a task that is refused
INNER = ("seed_is_random",)  # fields that the engine sets


def task_schemas() -> list[dict[str, Any]]:
    """What the OpenAPI document says of a task: the fields of each kind, and anything else.

    Fields may have other usual names, and a task that cannot be used is accepted, and fails alone.
    """
    return [*map(_schema_of, KINDS.values()), {"description": "Anything else fails, and says why."}]


def _schema_of(kind: type[TaskKind[Any]]) -> dict[str, Any]:
    schema = in_one_piece(TypeAdapter(kind.task).json_schema())
    schema.pop("additionalProperties")
    for name in ("output_path", *INNER):
        schema["properties"].pop(name, None)
    return schema


class Pictures(Protocol):
    """Where pictures of callers are found: a data URL, base64, a file's id, an own result."""

    async def resolve(self, caller: str, reference: str, param: str) -> str:
        """The path of a picture.

        Raises:
            ApiError: there is none, or it cannot be used.
        """


class LoraNames(Protocol):
    """The LoRAs that callers may ask for."""

    def resolve(self, name: str, param: str, kind: Role) -> str:
        """The path of a LoRA.

        Args:
            kind: of the tasks that are to have it.

        Raises:
            ApiError: there is none of this name, or it cannot be used.
        """


async def lora_paths(loras: LoraNames, names: Iterable[str], kind: Role) -> list[str]:
    """The paths of the LoRAs that a request of the Images API names; see `LoraNames.resolve`."""
    return [
        await asyncio.to_thread(loras.resolve, name, f"loras[{place}].name", kind)
        for place, name in enumerate(names)
    ]


@dataclass(frozen=True)
class CheckedTasks:
    """Tasks for the engine, and why some of them are not to be tried, by position."""

    tasks: tuple[dict[str, Any], ...]
    refused: Mapping[int, str]


class TaskRequests:
    """Reads what callers ask for.

    Args:
        pictures: of callers.
        loras: by name.
        seed: of a job's first task; those without a seed of their own count on from it.
        picture_suffix: of the files that pictures are kept in.
    """

    def __init__(
        self, pictures: Pictures, loras: LoraNames, seed: int, picture_suffix: str = ".png"
    ) -> None:
        self._pictures = pictures
        self._loras = loras
        self._seed = seed
        self._picture_suffix = picture_suffix

    async def check(
        self,
        caller: str,
        given: Sequence[Any],
        folder: str,
        picture_suffixes: Sequence[str] = (),
    ) -> CheckedTasks:
        """Check the tasks of a job.

        Args:
            folder: of the job's results, relative to the output folder.
            picture_suffixes: of the files that pictures are kept in, for each task; by default
                the usual one.
        """
        tasks: list[dict[str, Any]] = []
        refused: dict[int, str] = {}
        names = _names(given, refused)
        for position, asked in enumerate(given):
            task = _outline(asked)
            if position not in refused:
                try:
                    task = await self._task(caller, asked, position)
                except ApiError as error:
                    refused[position] = printable(error.message)
                except MultiGPUError as error:
                    refused[position] = printable(str(error))
            suffixes = _kind_named(task["kind"]).suffixes
            suffix = suffixes[0]
            if suffixes == PICTURE_SUFFIXES:
                suffix = picture_suffixes[position] if picture_suffixes else self._picture_suffix
            task["task_id"] = names[position]
            task["output_path"] = f"{folder}/{position}{suffix}"
            tasks.append(task)
            if position % 100 == 99:
                await asyncio.sleep(0)  # others are served, too
        return CheckedTasks(tuple(tasks), refused)

    async def _task(self, caller: str, asked: Any, position: int) -> dict[str, Any]:
        kind, given = kind_asked_for(asked, GenerateTask)
        if not isinstance(given, Mapping):
            raise InputError(f"expected an object with the fields of a task, found {shown(asked)}.")
        _refuse_inner(given)
        task: Task = kind().parse(given)
        if task.output_path is not None:  # in whichever spelling
            raise ApiError(400, OWN_NAMES)
        task = await self._with_own_files(task, caller, f"tasks[{position}]")
        seed = task.seed
        if seed is None:
            seed = seed_of_task(self._seed, position)
        elif seed == RANDOM:
            seed = random_seed()  # now, so that a second try after a crash has the same one
        return {**_said(task), "kind": task.role, "seed": seed}

    async def _with_own_files(self, task: Task, caller: str, param: str) -> Task:
        """The task with files of the daemon in place of whatever names the caller gave."""
        changed: dict[str, Any] = {}
        for name in task.picture_fields:
            value = getattr(task, name)
            found = [
                await self._pictures.resolve(caller, path, f"{param}.{name}")
                for path in paths_in(value)
            ]
            changed[name] = found[0] if isinstance(value, str) else tuple(found)
        one: str | None = getattr(task, "lora_path", None)
        if one is not None:
            changed["lora_path"] = await self._lora(one, f"{param}.lora_path", task.role)
        if getattr(task, "loras", ()):
            changed["loras"] = tuple(
                [
                    replace(lora, path=await self._lora(lora.path, f"{param}.loras", task.role))
                    for lora in task.lora_stack
                ]
            )
        return replace(task, **changed)

    async def _lora(self, name: str, param: str, kind: Role) -> str:
        """The path of a LoRA. To find it may take the disk, and a wait until a batch is planned."""
        return await asyncio.to_thread(self._loras.resolve, name, param, kind)


def _refuse_inner(fields: Mapping[str, Any]) -> None:
    for name in INNER:
        if name in fields:
            raise ApiError(400, f"Unknown field {shown(name)}.")


def _outline(asked: Any) -> dict[str, Any]:
    """What a task is known by if it is refused: its kind, and what it should have shown."""
    try:
        kind, given = kind_asked_for(asked, GenerateTask)
    except MultiGPUError:
        return {"kind": GenerateTask.role}
    outline = {"kind": kind.task.role}
    for name in ("prompt", "instruction"):
        text = given.get(name) if isinstance(given, Mapping) else None
        if isinstance(text, str):
            outline[name] = printable(text[:MOST_OUTLINED])
    return outline


def _said(task: Task) -> dict[str, Any]:
    """The fields of a task without those that it leaves open."""
    data = task_to_json(task)
    for field in fields(cast(Any, task)):
        usual = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name in data and data[field.name] == usual:
            del data[field.name]
    return data


def _names(given: Sequence[Any], refused: dict[int, str]) -> list[str]:
    """Names of tasks, each once: those that callers give, else the positions."""
    first: dict[str, int] = {}
    names: dict[int, str] = {}
    for position, asked in enumerate(given):
        name = asked.get("task_id") if isinstance(asked, Mapping) else None
        if not isinstance(name, str) or not name or printable(name) != name:
            continue  # the check of the task says what is wrong with it
        if name in first:
            refused[position] = (
                f"task_id: {shown(name)} is task {first[name]}'s already; each needs its own."
            )
        else:
            first[name] = position
            names[position] = name
    for position in range(len(given)):
        name = names.get(position) or str(position)
        while position not in names and name in first:
            name += "'"
        if position not in names:
            first[name] = position
            names[position] = name
    return [names[position] for position in range(len(given))]


def _kind_named(role: str) -> type[TaskKind[Any]]:
    return next(kind for kind in KINDS.values() if kind.task.role == role)
