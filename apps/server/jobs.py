"""`/v1/jobs`: tasks of any kind as one job, with progress, results and an early end."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from apps.server.context import Caller, TheInbox, TheLoras, TheService
from apps.server.records import NewJob, StoredJob
from apps.server.safety.tasks import contained
from apps.server.service import JOBS

router = APIRouter(prefix="/v1/jobs")


class JobRequest(BaseModel):
    """What is handed in."""

    model_config = ConfigDict(extra="forbid")

    tasks: list[dict[str, Any]] = Field(min_length=1)
    priority: int = Field(0, ge=-1000, le=1000)


@router.post("", status_code=202)
async def create(
    asked: JobRequest, service: TheService, caller: Caller, inbox: TheInbox, loras: TheLoras
) -> dict[str, Any]:
    job = NewJob(caller, (), asked.priority)
    own = [
        await contained(task, caller, inbox, loras, f"tasks[{i}]")
        for i, task in enumerate(asked.tasks)
    ]
    tasks = tuple(
        {"seed": i, "task_id": str(i), **task, "output_path": f"{JOBS}/{job.id}/{i}.png"}
        for i, task in enumerate(own)
    )
    stored, _ = await service.submit(NewJob(caller, tasks, asked.priority, id=job.id))
    return view(stored)


@router.get("/{id}")
async def read(id: str, service: TheService, caller: Caller) -> dict[str, Any]:
    return view(await service.find(id, caller))


@router.get("/{id}/results")
async def results(
    id: str,
    service: TheService,
    caller: Caller,
    first: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> dict[str, Any]:
    stored = await service.find(id, caller)
    return {"data": [dict(r.result) for r in await service.results(stored, first, limit)]}


@router.delete("/{id}")
async def cancel(id: str, service: TheService, caller: Caller) -> dict[str, Any]:
    return view(await service.cancel(await service.find(id, caller)))


def view(job: StoredJob) -> dict[str, Any]:
    """A job as callers see it."""
    return {
        "id": job.id,
        "object": "job",
        "status": job.status,
        "created_at": int(job.created),
        "priority": job.priority,
        "counts": {"total": job.total, "succeeded": job.succeeded, "failed": job.failed},
    }
