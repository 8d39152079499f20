"""Telling a process that works from one that hangs, without its help."""

from core.processes.activity import activity_of


class StallWatch:
    """Watches one process; what neither computes nor reads does not get on."""

    def __init__(self, pid: int, now: float) -> None:
        self._pid = pid
        self._seen = activity_of(self._pid)
        self._since = now

    def idle_for(self, now: float) -> float:
        """Seconds since the process was last seen to have done something."""
        activity = activity_of(self._pid)
        if activity != self._seen:
            self._seen, self._since = activity, now
        return now - self._since

    def forgive(self, seconds: float) -> None:
        """Do as if that time had not passed."""
        self._since += seconds
