"""Who is whose child among all processes, from one look at them.

psutil looks at all of them for each parent that it is asked about, and tests that wait ask often.
"""

import os
from collections import defaultdict
from contextlib import suppress

import psutil


class ProcessTree:
    """The processes of this machine at one moment."""

    def __init__(self) -> None:
        self._below: dict[int, list[int]] = defaultdict(list)
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stream:
                # After the name in brackets, which may hold anything: state, parent.
                state, parent, *_ = stream.read().rpartition(b")")[2].split()
                if state != b"Z":
                    self._below[int(parent)].append(int(name))

    def children(self, parent: int) -> list[psutil.Process]:
        """Those of a process that live: nobody has waited for a zombie yet, and it does nothing."""
        found = []
        for pid in self._below.get(parent, ()):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def below(self, parent: int) -> list[psutil.Process]:
        """Its children, and theirs, and so on."""
        children = self.children(parent)
        return children + [p for child in children for p in self.below(child.pid)]


def words_of(process: psutil.Process) -> str:
    """By which a process is known; one that is a fork has a name alone."""
    return " ".join([process.name(), *process.cmdline()])


def runs(process: psutil.Process) -> bool:
    """Whether it is there and has not ended, whoever may still have to wait for it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
