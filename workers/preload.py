"""What the fork server imports, once for all workers; see `core.processes.fork_server`.

The server must stay fit to be forked: one thread, and no CUDA. `complete` says that it is,
`refusal` why not.
"""

import ctypes
import gc
import os

from core.processes.fork_server import PRELOAD_PARENT, PRELOAD_ROLE
from workers import boot

complete = False
refusal: str | None = None
NVML = "libnvidia-ml.so.1"
MOST_NVML_USERS = 64  # libraries that asked NVML and did not shut it down again


def _preload() -> None:
    """Preload for the role that the environment names, if main started this process for that."""
    role, parent = os.environ.pop(PRELOAD_ROLE, None), os.environ.pop(PRELOAD_PARENT, None)
    if role is None or parent is None:
        return
    boot.bind_to_parent(int(parent))
    gc.disable()  # while importing: a tenth sooner
    from workers import process, result_saver  # noqa: F401

    if role == "simulated":
        from workers import extras, library_warnings, simulated_gpu  # noqa: F401
        from workers.models import registry  # noqa: F401
    else:
        from workers.extras import hide_unneeded
        from workers.library_warnings import collect

        hide_unneeded(())
        from workers.models.registry import import_for

        collect()
        import_for(role)
        _shut_nvml_down()
        _check_cuda()
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise RuntimeError(f"{threads} threads: forks of this process may hang")
    gc.freeze()  # a collection in a fork would otherwise write to, and so copy, all of it
    gc.enable()
    boot.fork_server = os.getpid()


def _shut_nvml_down() -> None:
    """Close what torch left open when diffusers, as it was imported, asked whether there are GPUs.

    torch asks NVML (PYTORCH_NVML_BASED_CUDA_CHECK) and never shuts it down. NVML counts its users.
    The devices may not be hidden from the import instead: diffusers remembers the answer, and
    would refuse `device_map="cuda"` in every fork.
    """
    try:
        library = ctypes.CDLL(NVML, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:  # nobody has loaded it
        return
    for _ in range(MOST_NVML_USERS):
        if library.nvmlShutdown() != 0:  # NVML_ERROR_UNINITIALIZED: that was the last one
            return


def _check_cuda() -> None:
    import torch

    if torch.cuda.is_initialized():
        raise RuntimeError("CUDA is initialized: forks of this process cannot use it")
    if devices := boot.open_gpus():
        raise RuntimeError(f"{', '.join(devices)} is open: forks would share it")


try:
    _preload()
except Exception as error:
    # Raised on, it would end the server with a traceback that says nothing to its user.
    refusal = " ".join(str(error).split()) or repr(error)
complete = boot.fork_server is not None
