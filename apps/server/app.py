"""The HTTP application: its parts, and one form for every error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from loguru import logger
from starlette.exceptions import HTTPException

from apps.server import jobs, models
from apps.server.errors import INVALID, ApiError, envelope
from apps.server.images import pictures, routes
from apps.server.images.links import Links
from apps.server.service import Service
from core.errors import StorageError


def create_app(service: Service) -> FastAPI:
    """The application in front of a service, which it starts and stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(title="Image generation on warm GPUs", lifespan=lifespan)
    app.state.service = service
    app.state.models = models.Models(service.generator)
    app.state.links = Links.of_folder(service.folder, service.rules.images.url_lifetime)
    for part in (jobs, models, routes, pictures):
        app.include_router(part.router)
    _report_errors(app)
    return app


def _report_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def known(request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.envelope, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        param = ".".join(place) or None
        message = f"{param}: {first['msg']}" if param else str(first["msg"])
        return JSONResponse(envelope(message, INVALID, param, "invalid_value"), 400)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404:
            message = f"Invalid URL ({request.method} {request.url.path})"
        return JSONResponse(envelope(message), error.status_code, error.headers)

    @app.exception_handler(StorageError)
    async def disk(request: Request, error: StorageError) -> JSONResponse:
        return JSONResponse(envelope(str(error), "server_error", None, "insufficient_storage"), 507)

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        name = uuid4().hex
        logger.opt(exception=error).error(f"A request failed ({name}); this is a defect.")
        message = f"The server had an error while processing your request ({name})."
        return JSONResponse(envelope(message, "server_error"), 500)
