"""What the daemon tells systemd, or whoever else started it and listens at NOTIFY_SOCKET.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import os
import socket

from loguru import logger

TO_END = 60.0  # seconds that workers, journal and connections take to end, at the very most


def ready(address: str) -> None:
    """It listens, and accepts jobs; models may still be loading."""
    _tell("READY=1", f"STATUS=Serving on {address}")


def stopping(seconds: float) -> None:
    """It works on for so many seconds, and ends then: whoever waits for it waits so long."""
    microseconds = int((seconds + TO_END) * 1e6)
    _tell("STOPPING=1", "STATUS=Stopping", f"EXTEND_TIMEOUT_USEC={microseconds}")


def _tell(*facts: str) -> None:
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place[:1] not in ("/", "@"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.connect("\0" + place[1:] if place[0] == "@" else place)
            to.sendall("\n".join(facts).encode())
    except OSError as error:
        logger.warning(f"NOTIFY_SOCKET: {place}: cannot be told: {error.strerror or error}.")
