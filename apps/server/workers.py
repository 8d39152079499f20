"""`/v1/workers`: what each worker does, and its drain; which models are loaded."""

import asyncio
from collections.abc import Mapping
from typing import Literal, NotRequired

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from apps.server.context import Caller, Operator, TheService
from apps.server.document import errors
from apps.server.errors import ApiError, not_answering, not_found
from apps.server.models import Models, TheModels
from apps.server.paging import Listing
from apps.server.service import Service
from core.devices.device import memory_in_use
from core.engine.snapshot import EngineSnapshot, TaskInHand, WorkerSnapshot
from core.errors import MultiGPUError

router = APIRouter(prefix="/v1/workers", tags=["operations"])


class ModelRequest(BaseModel):
    """Which model: that which serves tasks of this kind."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["generate", "edit", "score"]


class TaskInHandView(TypedDict):
    """A task that a worker has; of other callers' tasks it says only that there is one."""

    doing: str
    job: NotRequired[str]
    task_id: NotRequired[str]
    step: NotRequired[int]
    steps: NotRequired[int]


class WorkerView(TypedDict):
    """A worker.

    Attributes:
        status: a few words, such as `ready`, `loading the model`, `given up` or `drained`.
        drained: it is given no more tasks until somebody says otherwise.
        kind: of the tasks that its model is for.
        busy_for: seconds since its device began what it runs; 0 while it runs nothing.
        restarts: deaths that nobody ordered.
        reason: why it serves its model no more.
        memory_used: bytes; null where the device does not tell, as is `memory_total`.
    """

    id: str
    object: Literal["worker"]
    status: str
    drained: bool
    kind: str | None
    model: str | None
    loras: list[str]
    tasks: list[TaskInHandView]
    busy_for: float
    restarts: int
    reason: str | None
    memory_used: int | None
    memory_total: int | None


class ModelState(TypedDict):
    """A model of the engine.

    Attributes:
        kind: of the tasks that it is for.
        waiting: tasks that wait for a worker.
        load_seconds: of its last load.
        given_up: why nobody serves it any more.
    """

    kind: str
    waiting: int
    loads: int
    load_seconds: float | None
    given_up: str | None


class WorkerList(Listing[WorkerView]):
    """All workers, and the models of the engine."""

    models: list[ModelState]


@router.get("")
async def list_workers(service: TheService, models: TheModels, caller: Caller) -> WorkerList:
    """Workers with model, LoRAs, tasks, steps and memory; models with what waits for them."""
    return await _view(service, models, caller)


@router.post("/{name:path}/drain", responses=errors(404))
async def drain_worker(
    name: str, service: TheService, models: TheModels, caller: Operator
) -> WorkerView:
    """Give a worker nothing more. It finishes its task, and then leaves its GPU."""
    await _check(service, name)
    service.generator.drain(name)
    return await _one(service, models, caller, name)


@router.post("/{name:path}/undrain", responses=errors(404))
async def undrain_worker(
    name: str, service: TheService, models: TheModels, caller: Operator
) -> WorkerView:
    """Let a drained worker load its model again and take tasks."""
    await _check(service, name)
    service.generator.undrain(name)
    return await _one(service, models, caller, name)


@router.post("/load", status_code=202, responses=errors(409))
async def load_model(
    asked: ModelRequest, service: TheService, models: TheModels, caller: Operator
) -> WorkerList:
    """Load a model before there are tasks for it, on workers that have no other one.

    Workers that have another model change it as tasks ask for it.
    """
    try:
        await asyncio.to_thread(service.generator.warm, asked.kind)
    except MultiGPUError as error:
        raise ApiError(409, str(error), "model_not_usable", "kind") from None
    return await _view(service, models, caller)


@router.post("/unload", status_code=202)
async def unload_model(
    asked: ModelRequest, service: TheService, models: TheModels, caller: Operator
) -> WorkerList:
    """Free the memory of a model for which no task waits; its next task loads it again."""
    await asyncio.to_thread(service.generator.unload, asked.kind)
    return await _view(service, models, caller)


async def _check(service: Service, name: str) -> None:
    engine = await snapshot_of(service)
    if not any(worker.name == name for worker in engine.workers):
        raise not_found(f"No worker is called '{name}'.", "worker_not_found")


async def snapshot_of(service: Service) -> EngineSnapshot:
    """How workers and models stand.

    Raises:
        ApiError: 503: the engine does not answer.
    """
    try:
        return await service.snapshot()
    except TimeoutError:
        raise not_answering() from None


async def _one(service: Service, models: Models, caller: str, name: str) -> WorkerView:
    workers = (await _view(service, models, caller))["data"]
    return next(worker for worker in workers if worker["id"] == name)


async def _view(service: Service, models: Models, caller: str) -> WorkerList:
    engine = await snapshot_of(service)
    roles = {worker.role for worker in engine.workers if worker.model is not None}
    names = {role: await models.serving(role) for role in roles if role is not None}
    memory = await asyncio.to_thread(
        lambda: {w.name: memory_in_use([w.device]) for w in engine.workers}
    )
    views = [_worker(service, caller, w, memory[w.name], names) for w in engine.workers]
    return {
        "object": "list",
        "data": views,
        "models": [
            {
                "kind": model.role,
                "waiting": model.waiting,
                "loads": model.loads,
                "load_seconds": model.load_seconds,
                "given_up": model.given_up,
            }
            for model in engine.models
        ],
    }


def _worker(
    service: Service,
    caller: str,
    worker: WorkerSnapshot,
    memory: int | None,
    names: Mapping[str, str],
) -> WorkerView:
    return {
        "id": worker.name,
        "object": "worker",
        "status": worker.state,
        "drained": worker.drained,
        "kind": worker.role,
        "model": names.get(worker.role or ""),
        "loras": list(worker.loras),
        "tasks": [_task(service, caller, task) for task in worker.tasks],
        "busy_for": round(worker.busy_for, 3),
        "restarts": worker.restarts,
        "reason": worker.unfit,
        "memory_used": memory,
        "memory_total": worker.device.memory or None,
    }


def _task(service: Service, caller: str, task: TaskInHand) -> TaskInHandView:
    """A task in hand; of other callers' tasks it says only that there is one."""
    live = service.live_by_engine_job(task.job)
    if live is None or live.stored.caller != caller:
        return {"doing": task.doing}
    running = live.running.get(task.task_id)
    return {
        "doing": task.doing,
        "job": live.stored.id,
        "task_id": task.task_id,
        "step": running.done if running else 0,
        "steps": running.total if running else 0,
    }
