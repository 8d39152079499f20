"""`/healthz`, `/readyz` and `/metrics`: for load balancers, supervisors and Prometheus."""

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from apps.server.context import TheService
from apps.server.metrics import CONTENT_TYPE
from apps.server.service import Service

READY = "ready"
router = APIRouter(tags=["operations"])


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """The process answers. It says nothing of workers: see `/readyz`."""
    return "ok\n"


@router.get("/readyz", responses={503: {"description": "No worker could begin a task now."}})
async def readyz(service: TheService) -> JSONResponse:
    """Whether a worker has a model loaded and new jobs are taken; else why not."""
    reason = await why_not_ready(service)
    body: dict[str, Any] = {"status": READY if reason is None else "not ready"}
    if reason is not None:
        body["reason"] = reason
    return JSONResponse({**body, "workers": service.workers}, 200 if reason is None else 503)


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
    engine = await service.snapshot()
    text = await asyncio.to_thread(
        service.metrics.expose, engine, service.open_jobs, service.queue()
    )
    return Response(text, media_type=CONTENT_TYPE)
