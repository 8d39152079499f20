"""What the fork server imports, once for all workers; see `core.processes.fork_server`.

The server must stay fit to be forked: no thread beside its own that does anything, and no CUDA.
`complete` says that it is, `refusal` why not.
"""

import ctypes
import gc
import os
import threading
import time
from pathlib import Path

from core.processes.preload_environment import PRELOAD_PARENT, PRELOAD_ROLE
from workers import boot

complete = False
refusal: str | None = None
NVML = "libnvidia-ml.so.1"
ASLEEP = "S"  # the state of a thread, as Linux calls it
IDLE = 0.2  # seconds in which a thread that waits for something does not run at all
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
    _check_threads()
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


def _check_threads() -> None:
    """Refuse where another thread may hold a lock, which would never be released in a fork.

    One of a library that sleeps all the time holds none: the CUDA driver has one, named `cuda…`,
    as soon as torch has asked it for devices.
    """
    others = [t for t in threading.enumerate() if t is not threading.current_thread()]
    if others:
        names = ", ".join(thread.name for thread in others)
        raise RuntimeError(f"its thread {names} runs: forks of this process may hang")
    before = _native_threads()
    if not before:
        return
    time.sleep(IDLE)
    after = _native_threads()
    # One that could run and has not been let is as it was, too.
    busy = [t for t, now in after.items() if now != before.get(t) or ASLEEP not in now]
    if busy:
        raise RuntimeError(f"its thread {', '.join(busy)} runs: forks of this process may hang")


def _native_threads() -> dict[str, list[str]]:
    """By name and id: how often each other thread has been given a processor, and its state."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.get_native_id():
            name = (task / "comm").read_text().strip()
            said = (task / "status").read_text().splitlines()
            facts = (line.split() for line in said if "ctxt_switches" in line or "State:" in line)
            found[f"{name} ({task.name})"] = [fact[1] for fact in facts]
    return found


try:
    _preload()
except Exception as error:
    # Raised on, it would end the server with a traceback that says nothing to its user.
    refusal = " ".join(str(error).split()) or repr(error)
complete = boot.fork_server is not None
