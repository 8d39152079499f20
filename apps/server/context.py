"""What a route is given: the service, and who asks."""

from typing import Annotated

from fastapi import Depends, Request

from apps.server.errors import ApiError
from apps.server.inbox import Inbox
from apps.server.loras import TheLoras
from apps.server.safety.guard import LOCAL
from apps.server.service import Service
from apps.server.state import kept
from core.remote.protocol import MOST_PRIORITY

# Asynchronous, for the reason that `kept` gives.


async def _caller(request: Request) -> str:
    caller: str = getattr(request.state, "caller", LOCAL)
    return caller


async def by_socket(request: Request) -> bool:
    """Whether this machine's own user asks, by the socket that nobody else can open."""
    return getattr(request.state, "by_socket", False) is True


async def _operator(request: Request) -> str:
    """The caller, who may change how everybody is served; without keys anybody here may."""
    if not getattr(request.state, "operator", True):
        message = "Your API key may not do this; it takes one that was made with --operator."
        raise ApiError(403, message, "insufficient_permissions")
    return await _caller(request)


async def _most_priority(request: Request) -> int:
    """The highest priority that the caller's jobs may have. Operators may ask for any."""
    if getattr(request.state, "operator", True):
        return MOST_PRIORITY
    own: int | None = request.state.max_priority
    service: Service = request.app.state.service
    return service.rules.max_priority_per_key if own is None else own


__all__ = [
    "LOCAL",
    "BySocket",
    "Caller",
    "MostPriority",
    "Operator",
    "TheInbox",
    "TheLoras",
    "TheService",
    "by_socket",
]
BySocket = Annotated[bool, Depends(by_socket)]
TheInbox = Annotated[Inbox, Depends(kept("inbox"))]
TheService = Annotated[Service, Depends(kept("service"))]
Caller = Annotated[str, Depends(_caller)]
MostPriority = Annotated[int, Depends(_most_priority)]
Operator = Annotated[str, Depends(_operator)]
