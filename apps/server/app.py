"""The HTTP application: its parts, and one form for every error."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route

from apps.openai_images.refusals import refusal
from apps.server import (
    caller_events,
    engine_routes,
    events,
    failures,
    files,
    health,
    jobs,
    lora_routes,
    models,
    results,
    workers,
)
from apps.server.access_log import AccessLog
from apps.server.batches import routes as batch_routes
from apps.server.batches.batches import Batches
from apps.server.batches.requests import RequestTasks
from apps.server.document import describe, name_of_route
from apps.server.errors import CLIENT_GONE, INVALID, SERVER, ApiError, envelope
from apps.server.images import pictures, routes
from apps.server.images.links import Links
from apps.server.leashes import Leashes
from apps.server.own_files import provide_files
from apps.server.page import page
from apps.server.pinned_loras import PinnedLoras
from apps.server.public_results import hidden_folders
from apps.server.safety.forms import FORM_LIMITS
from apps.server.safety.guard import Guard
from apps.server.safety.hosts import Hosts
from apps.server.safety.keys import ApiKeys
from apps.server.service import Service
from apps.server.thumbnails import Thumbnails
from core.errors import StorageError


def create_app(service: Service, keys: ApiKeys | None = None, socket: str | None = None) -> FastAPI:
    """The application in front of a service, which it starts and stops.

    Args:
        keys: API keys; without them nobody stands at the door, for requests from this process.
        socket: the path of the socket at which only this machine's user can ask.

    Raises:
        InputError, StorageError: the service's folder cannot hold what callers send.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        leashes.start()
        app.state.batches.start()
        # It says what it leaves out, and may wait until jobs of before are planned.
        looking = asyncio.create_task(asyncio.to_thread(app.state.loras.entries))
        app.state.pinned_loras.restore(service.generator, app.state.loras)
        try:
            yield
        finally:
            await app.state.pinned_loras.end()
            leashes.stop()
            await app.state.batches.close()
            await service.close()
            await asyncio.wait([looking])

    leashes = Leashes(service, service.rules.command_timeout)

    app = FastAPI(
        title="Image generation on warm GPUs",
        version="1",
        generate_unique_id_function=name_of_route,
        lifespan=lifespan,
        form_limits=FORM_LIMITS,
        docs_url=None,  # its scripts come from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    app.state.leashes = leashes
    provide_files(app, service)
    app.state.pinned_loras = PinnedLoras(service.folder)
    app.state.models = models.Models(service.generator)
    app.state.links = Links.of_folder(service.folder, service.rules.images.url_lifetime)
    app.state.thumbnails = Thumbnails(service)
    app.state.batches = _batches(app, service)
    of_jobs = (jobs, events, results, failures, caller_events, batch_routes)
    of_models = (lora_routes, models, workers, engine_routes)
    parts = (*of_jobs, *of_models, files, routes, pictures, health, page)
    for part in parts:
        app.include_router(part.router)
    if keys is not None:
        rules = service.rules
        hosts = Hosts(rules.host, rules.allowed_hosts)
        limits = rules.limits.of_bodies
        app.add_middleware(Guard, hosts=hosts, keys=keys, limits=limits, socket=socket)
    app.add_middleware(AccessLog, metrics=service.metrics)
    _report_errors(app, [route for part in parts for route in part.router.routes])
    describe(app, keys)
    return app


def _batches(app: FastAPI, service: Service) -> Batches:
    state = app.state
    tasks = RequestTasks(service, state.models, state.inbox, state.loras)
    return Batches(service, state.files, tasks, state.links, partial(hidden_folders, service))


def _report_errors(app: FastAPI, all_routes: Sequence[BaseRoute]) -> None:
    @app.exception_handler(ApiError)
    async def known(request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.envelope, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = first["loc"][1:]  # after `body`, `query`, `path` or `header`
        if place:
            return JSONResponse(refusal({**first, "loc": place}).envelope, 400)
        return JSONResponse(envelope(str(first["msg"]), INVALID, None, "invalid_value"), 400)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404 and error.detail == "Not Found":
            message = f"Invalid URL ({request.method} {request.url.path})"
        headers = dict(error.headers or {})
        if error.status_code == 405:  # Starlette names the methods of the first route of that path
            headers["Allow"] = ", ".join(_methods(all_routes, request.url.path)) or headers["Allow"]
        return JSONResponse(envelope(message), error.status_code, headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)  # in the middle of its own request

    @app.exception_handler(StorageError)
    async def disk(request: Request, error: StorageError) -> JSONResponse:
        return JSONResponse(envelope(str(error), SERVER, None, "insufficient_storage"), 507)

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        name = getattr(request.state, "request_id", None) or uuid4().hex
        logger.opt(exception=error).error(f"A request failed ({name}); this is a defect.")
        message = f"The server had an error while processing your request ({name})."
        return JSONResponse(envelope(message, SERVER), 500)


def _methods(routes: Iterable[BaseRoute], path: str) -> list[str]:
    """The methods with which a path may be asked for."""
    of_path = [r for r in routes if isinstance(r, Route) and r.path_regex.match(path)]
    return sorted({method for route in of_path for method in route.methods or ()})
