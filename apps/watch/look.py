"""What a watcher sees in one look, and what can be said of it. Pure."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from core.status.run_status import RunStatus, iso
from core.status.words import duration

Seen = Literal["waiting", "running", "completed", "failed", "interrupted", "killed", "silent"]
"""A state of `status.json`, or: waiting, nothing has been there yet; killed, its process is gone
without a word; silent, a daemon does not answer at this moment."""

QUIET = 60.0  # seconds without news that are worth a word


@dataclass(frozen=True)
class Look:
    """One look at a run.

    Attributes:
        place: where it was looked for, as users call it.
        status: None where there is none.
        title: what else there is to say first.
    """

    place: str
    seen: Seen
    status: RunStatus | None = None
    title: str = ""

    @property
    def is_over(self) -> bool:
        """Nothing more will be seen."""
        return self.seen in ("completed", "failed", "interrupted", "killed")

    @property
    def is_good(self) -> bool:
        """Nothing has to be done about it."""
        return self.seen in ("waiting", "running", "completed")

    def as_json(self) -> dict[str, Any]:
        """The document of the run, with `state` as it was seen, and `place`."""
        document = {} if self.status is None else self.status.as_json()
        return {**document, "state": self.seen, "place": self.place}


def look_of(status: RunStatus, place: str, is_alive: bool | None, now: float) -> Look:
    """What a run's document means at this moment.

    Args:
        is_alive: whether its process is; None where that cannot be seen, as on another machine.
        now: Unix time.
    """
    if status.state != "running":
        return Look(place, status.state, status)
    if is_alive is False:
        title = (
            f"Its process (pid {status.pid}) has gone without a word since {iso(status.updated)}. "
            f"Continue with: {status.command}"
        )
        return Look(place, "killed", replace(status, seconds_left=None), title)
    silence = now - status.updated
    title = ""
    if is_alive is None:
        title = f"It runs on {status.host}, and was last heard of {duration(silence)} ago."
    elif silence > QUIET:
        title = f"Nothing new for {duration(silence)}."
    return Look(place, "running", _as_of(status, silence), title)


def _as_of(status: RunStatus, later: float) -> RunStatus:
    """The document so many seconds after it was written: nothing but time has gone on."""
    later = max(0.0, later)

    def left(seconds: float | None) -> float | None:
        return None if seconds is None else max(0.0, seconds - later)

    kinds = tuple(replace(kind, seconds_left=left(kind.seconds_left)) for kind in status.kinds)
    return replace(status, kinds=kinds, seconds_left=left(status.seconds_left))
