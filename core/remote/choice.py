"""Whether a run uses a daemon: one that was named, one that is found, or none."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from loguru import logger

from core.errors import InputError
from core.remote.socket_place import answers, is_own_socket, socket_place

if TYPE_CHECKING:
    from core.remote.served_models import ServedModels
    from core.remote.server import Server

T = TypeVar("T")


def with_or_without_server(
    use_server: str,
    gpu_ids: Sequence[int] | None,
    choose: Callable[["ServedModels | None"], T],
) -> tuple[T, "Server | None"]:
    """What a run works with, and the daemon, if it uses one.

    Args:
        use_server: the setting: auto, never, or a URL.
        gpu_ids: devices that were named, if any; a daemon has its own.
        choose: makes the choice with a daemon's models, or without; it raises NotServed where
            the daemon has something else than the run asks for.

    Raises:
        InputError: a daemon that was named cannot be used.
    """
    place = socket_place() if use_server == "auto" else None
    if use_server == "never" or (place and not (is_own_socket(place) and answers(place))):
        return choose(None), None
    from core.remote.served_models import NotServed, ServedModels  # who has no daemon needs none
    from core.remote.server import KEY_VARIABLE, Server

    try:
        if gpu_ids is not None:
            raise NotServed("gpu_ids are of this process, and a server has its own")
        key = None if place else os.environ.get(KEY_VARIABLE)
        served = ServedModels(Server(place or use_server, key))
        return choose(served), served.server
    except NotServed as error:
        if place is None:
            raise InputError(f"use_server: {error}.") from None
        logger.info(f"The server of yours that runs is not used: {error}.")
        return choose(None), None
