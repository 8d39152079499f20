"""Sees to it that a run has one agent at a time on a node.

Ray forgets the name of an agent as soon as it is told to end it, and not when its process is gone.
"""

import socket
import time

LOOK = 0.05  # seconds between tries


def take_place(name: str, seconds: float) -> socket.socket | None:
    """Wait until no other process of this machine holds a name, and hold it.

    The kernel lets go of it when the socket is closed, or its process ends, however it ends.

    Args:
        name: of the place.
        seconds: to wait at the most: by then the fence of the one before has fallen.

    Returns:
        None where the name was not to be had.
    """
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end = time.monotonic() + seconds
    while True:
        try:
            own.bind(f"\0multi-gpu-agent-{name}")  # in no folder: nothing is left of it
        except OSError:
            if time.monotonic() > end:
                own.close()
                return None
            time.sleep(LOOK)
        else:
            return own
