"""Pictures that a task of a job reads, in the order of its fields."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.server.records import StoredJob, kind_of
from apps.server.service import Service
from core.tasks import ROLES, paths_in


def picture_fields(task: Mapping[str, Any]) -> list[str]:
    """Those fields of a task that hold pictures and are set."""
    return [name for name in ROLES[kind_of(task)].picture_fields if task.get(name)]


def sources_of(task: Mapping[str, Any]) -> list[str]:
    """Their paths."""
    return [path for name in picture_fields(task) for path in _paths(task[name])]


def _paths(value: Any) -> tuple[str, ...]:
    return paths_in(value if isinstance(value, str) else tuple(value))


async def source_picture(
    service: Service, job: StoredJob, position: int, place: int
) -> Path | None:
    """The file of one picture that a task reads; None where there is none."""
    task = await service.task(job, position)
    paths = sources_of(task) if task else []
    if place >= len(paths):
        return None
    file = Path(paths[place])
    return file if file.is_file() else None
