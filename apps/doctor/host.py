"""Cores, host memory, shared memory and limits of this process."""

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from apps.doctor.finding import Finding
from core.byte_sizes import shown_bytes

LEAST_FILES = 1024  # open files: eight workers, a daemon's callers, and files of models
LEAST_SHARED = 64_000_000  # bytes; what containers give that nobody told more
SHARED = Path("/dev/shm")


def cores() -> Iterator[Finding]:
    """Cores that this process may use."""
    count = len(os.sched_getaffinity(0))
    yield Finding("ok", "cores", f"{count}.", facts={"cores": count})


def memory() -> Iterator[Finding]:
    """Host memory, or what this process's container has of it."""
    from core.devices.host_memory import free_host_memory, host_memory

    free, total = free_host_memory(), host_memory()
    text = f"{shown_bytes(free)} of {shown_bytes(total)} free."
    yield Finding("ok", "host memory", text, facts={"free": free, "total": total})


def shared_memory(folder: Path = SHARED) -> Iterator[Finding]:
    """Shared memory, which some libraries want more of than a container has by default."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        yield Finding("note", "shared memory", f"{folder} is not there.")
        return
    facts = {"free": usage.free, "total": usage.total}
    text = f"{shown_bytes(usage.free)} of {shown_bytes(usage.total)} free."
    if usage.free < LEAST_SHARED:
        advice = "In a container, start it with --shm-size=1g."
        yield Finding("note", "shared memory", text, advice, facts)
    else:
        yield Finding("ok", "shared memory", text, facts=facts)


def open_files() -> Iterator[Finding]:
    """How many files this process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    facts = {"soft": soft, "hard": hard}
    text = f"At most {soft} at a time."
    if 0 <= soft < LEAST_FILES:
        advice = f"Allow more before a run with many workers: ulimit -n {LEAST_FILES}"
        yield Finding("note", "open files", text, advice, facts)
    else:
        yield Finding("ok", "open files", text, facts=facts)
