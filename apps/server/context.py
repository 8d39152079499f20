"""What a route is given: the service, and who asks."""

from typing import Annotated

from fastapi import Depends, Request

from apps.server.service import Service

LOCAL = "local"  # the caller where no API keys are used


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _caller(request: Request) -> str:
    caller: str = getattr(request.state, "caller", LOCAL)
    return caller


TheService = Annotated[Service, Depends(_service)]
Caller = Annotated[str, Depends(_caller)]
