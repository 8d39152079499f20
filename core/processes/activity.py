"""What a process has done so far, seen from outside and without its help."""

import psutil


def activity_of(pid: int) -> tuple[float, int] | None:
    """CPU seconds and bytes read so far; None for a process that is gone."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, process.io_counters().read_chars
    except psutil.Error:
        return None
