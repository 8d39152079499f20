"""`/v1/engine`: what this project's own commands ask of a daemon; see `core.remote`.

It goes with the version of the program, and is no part of the API for others: what a job is, how
it is followed and where its results are, is `/v1/jobs`.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from apps.server.context import BySocket, Caller, MostPriority, TheService
from apps.server.errors import ApiError
from apps.server.idempotency import IdempotencyKey
from apps.server.jobs import JobRequest, Requests, Views, accept
from apps.server.leashes import Leashes
from apps.server.state import kept
from core.errors import MultiGPUError
from core.remote.protocol import ENGINE_ROUTE, PROTOCOL

SOURCE = "engine"
router = APIRouter(prefix=ENGINE_ROUTE, include_in_schema=False)


class EngineJobRequest(JobRequest):
    """A job of a command.

    Attributes:
        owner: jobs with the same one share its part of the devices. It counts for this machine's
            own user alone: others share the part of their API key.
        suffixes: of each task's picture, as its name here ends; whatever for other results.
    """

    owner: str = Field(min_length=1, max_length=200)
    suffixes: list[Literal[".png", ".webp", ".jpg", ".jpeg", ".json"]]

    @model_validator(mode="after")
    def _one_for_each(self) -> "EngineJobRequest":
        if len(self.suffixes) != len(self.tasks):
            raise ValueError("give one of the suffixes for each of the tasks")
        return self


TheLeashes = Annotated[Leashes, Depends(kept("leashes"))]


@router.get("")
async def engine(
    service: TheService,
    caller: Caller,
    by_socket: BySocket,
    kind: Literal["generate", "edit", "score"] = "generate",
) -> dict[str, Any]:
    """What does a kind of task here, with all that decides results."""
    try:
        served = await asyncio.to_thread(service.generator.served, kind)
    except MultiGPUError as error:
        raise ApiError(
            409, f"No model here is for tasks of this kind: {error}", "model_not_usable", "kind"
        ) from None
    return {
        "object": "engine",
        "protocol": PROTOCOL,
        "kind": kind,
        "max_tasks": service.most_tasks,
        **served.as_json(names_only=not by_socket),
    }


@router.post("/jobs", status_code=202)
async def create(
    asked: EngineJobRequest,
    service: TheService,
    caller: Caller,
    by_socket: BySocket,
    requests: Requests,
    views: Views,
    leashes: TheLeashes,
    most_priority: MostPriority,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Accept a job that is dropped when nobody follows it any more."""
    metadata = {"leash": True, **({"owner": asked.owner} if by_socket else {})}
    return await accept(
        asked,
        service,
        caller,
        requests,
        views,
        most_priority,
        idempotency_key,
        SOURCE,
        metadata,
        leashes.hold,
        asked.suffixes,
    )


@router.delete("/jobs/{id}", status_code=202)
async def drop(id: str, service: TheService, caller: Caller, leashes: TheLeashes) -> dict[str, Any]:
    """End a job and remove its results: whoever handed it in has them."""
    job = await service.find(id, caller)
    leashes.let_go(id)
    await service.drop(job)
    return {"id": id, "object": "job", "deleted": True}
