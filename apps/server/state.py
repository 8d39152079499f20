"""The parts of the daemon that its application keeps, as routes are given them."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request


def kept(name: str) -> Callable[[Request], Awaitable[Any]]:
    """A dependency: what the application keeps under a name.

    Asynchronous, as FastAPI runs others in a thread: two more switches of threads per request.
    """

    async def part(request: Request) -> Any:
        return getattr(request.app.state, name)

    return part
