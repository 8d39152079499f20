"""Where a user's daemon listens for that user's commands: a socket in a folder of theirs alone."""

import os
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

FOLDER = "multi-gpu-images"
NAME = "serve.sock"
LONGEST = 100  # bytes: a socket's address has room for 107


def socket_place() -> Path:
    """The socket's path: below XDG_RUNTIME_DIR, or in a private folder for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime) and os.path.isdir(runtime):
        place = Path(runtime) / FOLDER / NAME
        if len(os.fsencode(place)) <= LONGEST:
            return place
    return Path(tempfile.gettempdir()) / f"{FOLDER}-{os.getuid()}" / NAME


def is_private(folder: Path) -> bool:
    """Whether nobody but this user can have put something there."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def is_own_socket(place: Path) -> bool:
    """Whether there is a socket of this user, in a folder of theirs; it may be left over."""
    try:
        found = place.lstat()
    except OSError:
        return False
    is_own = stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid()
    return is_own and is_private(place.parent)


def answers(place: Path) -> bool:
    """Whether a process listens at a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(place))
        except OSError:
            return False
        return True


def listen(place: Path, backlog: int) -> socket.socket | None:
    """A listening socket of which only this user knows; None where another daemon has it.

    What a dead daemon left there is replaced.

    Raises:
        OSError: there can be none.
    """
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(place.parent):
        raise PermissionError(1, "the folder is not this user's alone", str(place.parent))
    if answers(place):
        return None
    with suppress(FileNotFoundError):
        place.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(os.fspath(place))
        place.chmod(0o600)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def remove(place: Path, listener: socket.socket) -> None:
    """End a socket, and its file unless another daemon has put its own there meanwhile."""
    with suppress(OSError):
        listener.close()
    if not answers(place):
        with suppress(OSError):
            place.unlink()
