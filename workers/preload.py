"""What the fork server imports, once for all workers. `core.worker_start` starts the server.

The server must stay fit to be forked: one thread, and no CUDA. `complete` says that it is.
"""

import gc
import os

from core.worker_start import PRELOAD_PARENT, PRELOAD_ROLE
from workers import boot

complete = False


def _preload() -> None:
    """For the role that the environment names, if main started this process for that."""
    role, parent = os.environ.pop(PRELOAD_ROLE, None), os.environ.pop(PRELOAD_PARENT, None)
    if role is None or parent is None:
        return
    boot.bind_to_parent(int(parent))
    gc.disable()  # while importing: a tenth sooner
    if role != "simulated":
        from workers.library_warnings import collect
        from workers.models.registry import import_for

        collect()
        import_for(role)
        _check_cuda()
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise RuntimeError(f"{threads} threads: forks of this process may hang")
    gc.freeze()  # a collection in a fork would otherwise write to, and so copy, all of it
    gc.enable()
    boot.fork_server = os.getpid()


def _check_cuda() -> None:
    import torch

    if torch.cuda.is_initialized():
        raise RuntimeError("CUDA is initialized: forks of this process cannot use it")
    opened = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
    devices = sorted(name for name in opened if name.startswith("/dev/nvidia"))
    if devices:
        raise RuntimeError(f"{', '.join(devices)} is open: forks would share it")


_preload()
complete = boot.fork_server is not None
