"""What a worker does before anything else, so that it never outlives or disturbs its parent."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # linux/prctl.h
ORPHANED_EXIT = 87

# The fork server's pid in its forks, which have it, and not main, for a parent.
fork_server: int | None = None


def bind_to_parent(parent_pid: int) -> None:
    """Die with the parent, even if it is killed; leave at once if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != (fork_server or parent_pid):
        os._exit(ORPHANED_EXIT)


def call(bound: None, target: Callable[..., None], *arguments: object) -> None:
    """What a fresh interpreter runs: `target`, which it imports once it is bound to its parent.

    Args:
        bound: what `bind_to_parent` returned, which was called as the arguments were read.
    """
    target(*arguments)


def open_gpus(pid: int | str = "self") -> list[str]:
    """Device files of NVIDIA GPUs that a process has open."""
    folder = f"/proc/{pid}/fd"
    opened = {os.path.realpath(os.path.join(folder, number)) for number in os.listdir(folder)}
    return sorted(name for name in opened if "/dev/nvidia" in name)


def ignore_terminal_signals() -> None:
    """Ignore signals of terminal and Slurm, which reach all; main decides what they mean.

    Main had them blocked when it started this process; what came since is thrown away.
    """
    signals = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1}
    for number in signals:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
