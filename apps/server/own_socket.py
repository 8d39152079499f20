"""The socket at which this user's commands find the daemon by themselves."""

import asyncio
import socket
from collections.abc import Callable

from loguru import logger

from core.remote.socket_place import listen, remove, socket_place

LOOK = 2.0  # seconds between looks whether the daemon that has the socket is gone


class OwnSocket:
    """Listens at the user's one socket: at once, or when the daemon that has it ends.

    Args:
        connection: makes a connection's protocol.
    """

    def __init__(self, connection: Callable[[], asyncio.Protocol], backlog: int) -> None:
        self._connection = connection
        self._backlog = backlog
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, now or later."""
        self._task = asyncio.create_task(self._take())

    def stop(self) -> None:
        """Listen no more; connections that are open stay."""
        if self._task is not None:
            self._task.cancel()
        if self._server is not None:
            self._server.close()
        if self._listener is not None:
            remove(socket_place(), self._listener)

    async def _take(self) -> None:
        place, told = socket_place(), False
        while self._listener is None:
            try:
                self._listener = await asyncio.to_thread(listen, place, self._backlog)
            except OSError as error:
                reason = error.strerror or error
                logger.warning(f"Commands will not find this server: {place}: {reason}.")
                return
            if self._listener is None:
                if not told:
                    logger.warning("Commands find another server of yours before this one.")
                told = True
                await asyncio.sleep(LOOK)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            self._connection, sock=self._listener, backlog=self._backlog
        )
