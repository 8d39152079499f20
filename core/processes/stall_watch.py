"""Telling a process that works from one that hangs, without its help."""

import psutil


class StallWatch:
    """Watches one process; what neither computes nor reads does not get on."""

    def __init__(self, pid: int, now: float) -> None:
        self._pid = pid
        self._seen = self._activity()
        self._since = now

    def idle_for(self, now: float) -> float:
        """Seconds since the process was last seen to have done something."""
        activity = self._activity()
        if activity != self._seen:
            self._seen, self._since = activity, now
        return now - self._since

    def forgive(self, seconds: float) -> None:
        """Do as if that time had not passed."""
        self._since += seconds

    def _activity(self) -> tuple[float, int] | None:
        """CPU seconds and bytes read so far; None for a process that is gone."""
        try:
            process = psutil.Process(self._pid)
            times = process.cpu_times()
            return times.user + times.system, process.io_counters().read_chars
        except psutil.Error:
            return None
