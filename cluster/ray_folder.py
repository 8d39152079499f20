"""The folder in which Ray keeps what is a cluster's own on this machine, its sockets among it."""

import os
from pathlib import Path

from core.errors import InputError
from core.paths import as_text

VARIABLES = ("RAY_TMPDIR", "TMPDIR")  # the first that is set names the folder
USUAL = "/tmp"
LONGEST = 107  # bytes of a socket's path, which the kernel sets
BELOW = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


def ray_folder() -> Path:
    """The folder; Ray's files lie in `ray` there."""
    return Path(next(filter(None, map(os.environ.get, VARIABLES)), USUAL))


def check_room_for_sockets() -> None:
    """See whether a cluster that is started here can have its sockets.

    Raises:
        InputError: their paths would be longer than the kernel allows.
    """
    folder = ray_folder()
    length, most = len(os.fsencode(folder)), LONGEST - BELOW
    if length <= most:
        return
    variable = next(name for name in VARIABLES if os.environ.get(name))
    raise InputError(
        f"{variable}: {as_text(folder)} has {length} bytes, and a Ray cluster that is started here "
        f"has its sockets below it: at most {most}, so that their paths keep to the kernel's "
        f"{LONGEST}. Name a shorter folder for Ray alone: export RAY_TMPDIR={USUAL}"
    )
