"""Whether a daemon of this user runs on this machine, and what it serves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.doctor.finding import Finding
from core.errors import MultiGPUError
from core.paths import as_text
from core.remote.socket_place import answers, is_own_socket, socket_place


def daemon(place: Path | None = None) -> Iterator[Finding]:
    """The socket at which commands of this user look for a daemon.

    Args:
        place: by default where they look.
    """
    place = place or socket_place()
    shown = as_text(place)
    if not is_own_socket(place):
        yield Finding("ok", "daemon", "None runs; `python serve.py` starts one.")
    elif not answers(place):
        yield Finding("note", "daemon", f"Nobody listens at {shown}, which one left behind.")
    else:
        yield from _served(place, shown)


def _served(place: Path, shown: str) -> Iterator[Finding]:
    from core.remote.served_models import ServedModels
    from core.remote.server import Server

    try:
        served = ServedModels(Server(place))
    except MultiGPUError as error:
        yield Finding("note", "daemon", f"One runs at {shown}, and cannot be used: {error}.")
        return
    workers = [device.label for device in served.devices]
    facts: dict[str, Any] = {"socket": shown, "model": served.drawing_model, "workers": workers}
    yield Finding(
        "ok",
        "daemon",
        f"One runs at {shown} and draws with {served.drawing_model} on {', '.join(workers)}. "
        "Commands use it where it has what they ask for; --no-server does without.",
        facts=facts,
    )
