"""`/healthz`, `/readyz` and `/metrics`: for load balancers, supervisors and Prometheus."""

import asyncio
from typing import Literal, NotRequired

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from typing_extensions import TypedDict

from apps.server.context import TheService
from apps.server.document import JSON, STATUSES, ref
from apps.server.errors import ErrorEnvelope, not_answering
from apps.server.metrics import CONTENT_TYPE
from apps.server.service import Service

READY = "ready"
router = APIRouter(tags=["operations"])


class Readiness(TypedDict):
    """Whether tasks can begin.

    Attributes:
        reason: why not.
        workers: what each worker last said of itself, by name.
    """

    status: Literal["ready", "not ready"]
    reason: NotRequired[str]
    workers: dict[str, str]


NOT_READY = {
    "description": f"No worker could begin a task now. {STATUSES[503]}",
    "content": {JSON: {"schema": {"anyOf": [ref(Readiness), ref(ErrorEnvelope)]}}},
}


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """The process answers. It says nothing of workers: see `/readyz`."""
    return "ok\n"


@router.get("/readyz", response_model=Readiness, responses={503: NOT_READY})
async def readyz(service: TheService) -> JSONResponse:
    """Whether a worker has a model loaded and new jobs are taken; else why not."""
    reason = await why_not_ready(service)
    body: Readiness = {"status": "ready", "workers": service.workers}
    if reason is not None:
        body = {"status": "not ready", "reason": reason, "workers": service.workers}
    return JSONResponse(body, 200 if reason is None else 503)


async def why_not_ready(service: Service) -> str | None:
    """Why no task could begin now; None if one could."""
    if service.draining:
        return "The server is about to stop."
    if service.disk_refusal is not None:
        return f"The disk takes nothing: {service.disk_refusal}"
    try:
        engine = await service.snapshot()
    except TimeoutError:
        return "The engine does not answer."
    given_up = [f"{m.role}: {m.given_up}" for m in engine.models if m.given_up is not None]
    if any(w.state == READY and not w.drained for w in engine.workers):
        return None
    if given_up:
        return " ".join(given_up)
    if not engine.workers:
        return "No worker was started yet."
    return "No worker has its model: " + ", ".join(f"{w.name} {w.state}" for w in engine.workers)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(service: TheService) -> Response:
    """Counters, gauges and histograms in Prometheus' text format."""
    try:
        engine = await service.snapshot()
    except TimeoutError:
        raise not_answering() from None
    text = await asyncio.to_thread(
        service.metrics.expose, engine, service.open_jobs, service.queue()
    )
    return Response(text, media_type=CONTENT_TYPE)
