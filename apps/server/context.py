"""What a route is given: the service, and who asks."""

from typing import Annotated

from fastapi import Depends, Request

from apps.server.inbox import Inbox
from apps.server.loras import TheLoras
from apps.server.safety.guard import LOCAL
from apps.server.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _inbox(request: Request) -> Inbox:
    inbox: Inbox = request.app.state.inbox
    return inbox


def _caller(request: Request) -> str:
    caller: str = getattr(request.state, "caller", LOCAL)
    return caller


def _by_socket(request: Request) -> bool:
    return getattr(request.state, "by_socket", False) is True


__all__ = ["LOCAL", "BySocket", "Caller", "TheInbox", "TheLoras", "TheService"]
BySocket = Annotated[bool, Depends(_by_socket)]
TheInbox = Annotated[Inbox, Depends(_inbox)]
TheService = Annotated[Service, Depends(_service)]
Caller = Annotated[str, Depends(_caller)]
