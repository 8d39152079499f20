"""A command's fork server as a fork that waits for its work: it has imported what workers need.

Tests of the fork server's own start have no warm commands.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing import forkserver, util
from typing import TYPE_CHECKING, Any, NoReturn

from core.devices.load_turns import PARALLEL_LOADING
from core.processes.fork_server import PRELOAD
from core.processes.preload_environment import PRELOAD_ROLE
from tests import late_environment

if TYPE_CHECKING:
    from tests.warm_server import Kind

SIMULATED = (
    *("workers.process", "workers.result_saver", "workers.simulated_gpu", "workers.extras"),
    *("workers.library_warnings", "workers.models.registry"),
)
NAME = "forkserver"  # as the kernel shows it, once it is one
PR_SET_NAME = 15  # linux/prctl.h
BLOCKED = {signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM}  # where it is started
REQUEST = 1 << 20  # bytes
# Environment: as main starts its fork server; what a library's own threads are by it.
IMPORTING = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_CBWR": "AUTO,STRICT",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
_util: Any = util  # typeshed knows nothing of what is used of both
_forkserver: Any = forkserver


def import_models() -> None:
    """Import what `workers.preload` does for all roles; the fork server then finds it there."""
    from core.tasks import ROLES
    from workers.extras import hide_unneeded
    from workers.library_warnings import collect
    from workers.models.registry import import_for

    hide_unneeded(())
    collect()
    for role in ROLES:
        import_for(role)


def keep_ready(kind: "Kind", not_for_it: Sequence[int] = ()) -> None:
    """Have a child of this process wait until this process starts its fork server, or ends.

    Args:
        not_for_it: file descriptors that it shall not have.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        for number in not_for_it:
            os.close(number)
        _wait(theirs)
    theirs.close()
    start = _util.spawnv_passfds
    waiting = [pid]

    def start_or_wake(path: Any, arguments: Sequence[Any], files: Sequence[int]) -> int:
        code = arguments[-1]
        # Two files: some newer Pythons hand over a third one.
        asked_for = len(files) == 2 and "multiprocessing.forkserver" in str(code)
        if not (asked_for and waiting and _is_for(kind)):
            return int(start(path, arguments, files))
        call = str(code).partition("; ")[2]
        socket.send_fds(ours, [json.dumps([call, dict(os.environ)]).encode()], files)
        ours.close()
        return waiting.pop()

    _util.spawnv_passfds = start_or_wake


def _is_for(kind: "Kind") -> bool:
    """Whether the fork server that is to be started now is of that kind."""
    if kind != "models":
        return os.environ.get(PRELOAD_ROLE) == "simulated"
    # diffusers reads PARALLEL_LOADING as it is imported.
    return os.environ.get(PRELOAD_ROLE) not in (None, "simulated") and (
        PARALLEL_LOADING not in os.environ
    )


def _wait(connection: socket.socket) -> NoReturn:
    """Become the fork server as soon as that is asked for."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        data, files, _, _ = socket.recv_fds(connection, REQUEST, 2)
        connection.close()
        if data:
            call, environment = json.loads(data)
            os.environ.clear()
            os.environ.update(environment)
            late_environment.read_again()
            ctypes.CDLL(None).prctl(PR_SET_NAME, NAME.encode())
            sys.modules.pop(PRELOAD, None)

            def main(listener: int, alive: int, preload: list[str], **data: Any) -> None:
                _forkserver.main(*files, preload, **data)

            eval(call, {"main": main})
    finally:
        os._exit(0)
