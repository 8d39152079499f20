"""`/v1/workers`: what each worker does, and its drain; which models are loaded."""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, cast

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from apps.server.context import Caller, Operator, TheService
from apps.server.errors import SERVER, ApiError, not_found
from apps.server.models import Models, TheModels
from apps.server.service import Service
from core.devices.device import memory_in_use
from core.engine.snapshot import EngineSnapshot, TaskInHand, WorkerSnapshot
from core.errors import MultiGPUError
from core.worker_spec import Role

router = APIRouter(prefix="/v1/workers", tags=["operations"])


class ModelRequest(BaseModel):
    """Which model: that which serves tasks of this kind."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["generate", "edit", "score"]


@router.get("")
async def workers(service: TheService, models: TheModels, caller: Caller) -> dict[str, Any]:
    """Workers with model, LoRAs, tasks, steps and memory; models with what waits for them."""
    return await _view(service, models, caller)


@router.post("/{name}/drain")
async def drain(
    name: str, service: TheService, models: TheModels, caller: Operator
) -> dict[str, Any]:
    """Give a worker nothing more. It finishes its task, and then leaves its GPU."""
    await _check(service, name)
    service.generator.drain(name)
    return await _view(service, models, caller, name)


@router.post("/{name}/undrain")
async def undrain(
    name: str, service: TheService, models: TheModels, caller: Operator
) -> dict[str, Any]:
    """Let a drained worker load its model again and take tasks."""
    await _check(service, name)
    service.generator.undrain(name)
    return await _view(service, models, caller, name)


@router.post("/load", status_code=202)
async def load(
    asked: ModelRequest, service: TheService, models: TheModels, caller: Operator
) -> dict[str, Any]:
    """Load a model before there are tasks for it, on workers that have no other one.

    Workers that have another model change it as tasks ask for it.
    """
    try:
        await asyncio.to_thread(service.generator.warm, asked.kind)
    except MultiGPUError as error:
        raise ApiError(409, str(error), "model_not_usable", "kind") from None
    return await _view(service, models, caller)


@router.post("/unload", status_code=202)
async def unload(
    asked: ModelRequest, service: TheService, models: TheModels, caller: Operator
) -> dict[str, Any]:
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
        raise ApiError(503, "The engine does not answer.", type=SERVER) from None


async def _view(
    service: Service, models: Models, caller: str, name: str | None = None
) -> dict[str, Any]:
    engine = await snapshot_of(service)
    roles = {worker.role for worker in engine.workers if worker.model is not None}
    names = {role: await models.serving(cast(Role, role)) for role in roles}
    memory = await asyncio.to_thread(
        lambda: {w.name: memory_in_use([w.device]) for w in engine.workers}
    )
    views = [_worker(service, caller, w, memory[w.name], names) for w in engine.workers]
    if name is not None:
        return next(view for view in views if view["id"] == name)
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
    names: Mapping[str | None, str],
) -> dict[str, Any]:
    return {
        "id": worker.name,
        "object": "worker",
        "status": worker.state,
        "drained": worker.drained,
        "kind": worker.role,
        "model": names.get(worker.role),
        "loras": list(worker.loras),
        "tasks": [_task(service, caller, task) for task in worker.tasks],
        "busy_for": round(worker.busy_for, 3),
        "restarts": worker.restarts,
        "reason": worker.unfit,
        "memory_used": memory,
        "memory_total": worker.device.memory or None,
    }


def _task(service: Service, caller: str, task: TaskInHand) -> dict[str, Any]:
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
