"""Ends what a local cluster leaves behind when its bridge is killed.

Ray's own helpers of a node outlive a raylet that was killed. The bridge marks all that it starts
in their environment; this process waits for the bridge's end and then kills whoever has the mark.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

MARK = "MULTI_GPU_CLUSTER"  # environment


def start_sweeper(mark: str) -> None:
    """Mark what this process starts from now on, and have it ended with this process."""
    reader, writer = os.pipe()  # the writing end is open for as long as this process lives
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.Popen(
        [sys.executable, "-c", f"from cluster.sweeper import sweep; sweep({reader}, {mark!r})"],
        env=environment,
        pass_fds=[reader],
        start_new_session=True,
    )
    os.close(reader)
    os.environ[MARK] = mark
    del writer


def sweep(reader: int, mark: str) -> None:
    """Wait until nobody holds the other end of a pipe; then kill all who have the mark."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    os.read(reader, 1)
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
