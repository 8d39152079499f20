"""Which threads a fork server has on a machine with a GPU, and what they came with.

A server is not forked where another thread may hold a lock. Libraries start threads as they are
imported, or when they ask the driver for GPUs: here they come one after the other, as in a server,
and after each the threads that there are by then are shown.
"""

import os
import sys
import threading
from pathlib import Path

from benchmarks.gpu_command import Command
from core.processes.fork_server import server_environment
from core.processes.preload_environment import PRELOAD_PARENT

SWITCHES = ("voluntary", "nonvoluntary")
LIBRARIES = ("nvidia", "cuda", "nccl", "cufile", "nvshmem", "cupti", "openblas", "gomp", "rdma")
# `workers.preload` imports what is left and then judges: it is what a server runs.
STAGES = """
import os, time
from benchmarks.gpu_threads import libraries_of, show
show("start")
from workers import process, result_saver
from workers.extras import hide_unneeded
hide_unneeded(())
import numpy
show("numpy")
import torch
show("torch")
print("devices by NVML:", torch.cuda.device_count(), flush=True)
show("torch has asked NVML")
import diffusers
show("diffusers")
import transformers
show("transformers")
import peft
show("peft")
from workers import preload
show("workers.preload, NVML shut down")
time.sleep(1)
show("one second later")
print("libraries:", *libraries_of(os.getpid()))
print(f"fit to be forked: {preload.complete}; {preload.refusal}", flush=True)
"""


def show(stage: str) -> None:
    """Print the threads of this process, and at which stage it is."""
    print(f"threads after {stage}: {'; '.join(threads_of(os.getpid()))}", flush=True)
    names = [thread.name for thread in threading.enumerate()]
    if len(names) > 1:
        print(f"  of Python: {', '.join(names)}", flush=True)


def threads_of(pid: int) -> list[str]:
    """Each thread's name, id, state, wait channel, system call and count of switches."""
    found = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name)):
        said = dict(line.split(":", 1) for line in _read(task / "status").splitlines())
        switches = [said.get(f"{kind}_ctxt_switches", "?").strip() for kind in SWITCHES]
        call = _read(task / "syscall").split()
        found.append(
            f"{_read(task / 'comm').strip()} ({task.name}) {said.get('State', '?').strip()}, "
            f"waits in {_read(task / 'wchan').strip() or '?'}, "
            f"system call {call[0] if call else '?'}, "
            f"switches {' + '.join(switches)}"
        )
    return found


def libraries_of(pid: int) -> list[str]:
    """Libraries in a process that have to do with GPUs or with threads."""
    lines = _read(Path(f"/proc/{pid}/maps")).splitlines()
    names = {Path(line.split()[-1]).name for line in lines if ".so" in line}
    return sorted(name for name in names if any(word in name.lower() for word in LIBRARIES))


def stages(role: str = "generate") -> list[str]:
    """What a process says that imports as a fork server does."""
    environment = {**os.environ, **server_environment(role), PRELOAD_PARENT: str(os.getpid())}
    command = Command([sys.executable, "-c", STAGES], environment)
    return list(command.lines())


def _read(file: Path) -> str:
    """A file of /proc; some may be read by few."""
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
