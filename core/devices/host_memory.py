"""Host memory of this process: the machine's, or what its container leaves."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = (  # limit and use, of cgroup v2 and v1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def free_host_memory(cgroups: Path = CGROUPS) -> int:
    """Bytes that may still be used; a container's own limit is not in what the system says."""
    import psutil  # who has a daemon's devices starts without it

    free: int = psutil.virtual_memory().available
    return min([free, *(max(0, limit - used) for limit, used in _limits(cgroups))])


def host_memory(cgroups: Path = CGROUPS) -> int:
    """Bytes of host memory in all, whether or not they are in use."""
    import psutil

    total: int = psutil.virtual_memory().total
    return min([total, *(limit for limit, _ in _limits(cgroups))])


def _limits(cgroups: Path) -> list[tuple[int, int]]:
    """Limit and present use, in bytes, of every cgroup that limits this process."""
    found = []
    for limit, used in _LIMITS:
        try:
            found.append((int((cgroups / limit).read_text()), int((cgroups / used).read_text())))
        except (OSError, ValueError):  # none, or "max"
            continue
    return found
