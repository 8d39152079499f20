"""What a worker's process may run in tests of backends, in place of a worker: none of these works.

Apart, so that such a process imports none of the tests.
"""

import json
import multiprocessing
import os
import resource
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from core.messages import Log, encode
from core.worker_spec import WorkerSpec

LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)


def hang_up(spec: WorkerSpec, reader: Connection, writer: Connection) -> None:
    writer.send_bytes(encode(Log("INFO", "farewell")))
    writer.close()
    reader.recv_bytes()


def stop_amid_a_message(spec: WorkerSpec, reader: Connection, writer: Connection) -> None:
    writer.send_bytes(encode(Log("INFO", "whole")))
    half = encode(Log("INFO", "half"))
    os.write(writer.fileno(), len(half).to_bytes(4, "big") + half[:7])
    reader.recv_bytes()
    os.write(writer.fileno(), half[7:])
    reader.recv_bytes()


def talk(spec: WorkerSpec, reader: Connection, writer: Connection) -> None:
    for number in range(5_000):
        writer.send_bytes(encode(Log("INFO", f"{number}", "x" * (number % 500))))


def read_nothing(spec: WorkerSpec, reader: Connection, writer: Connection) -> None:
    writer.send_bytes(encode(Log("INFO", "here")))
    threading.Event().wait()


def leave(spec: WorkerSpec, reader: Connection, writer: Connection) -> None:
    os._exit(3)


def tell_surroundings(spec: WorkerSpec, reader: Connection, writer: Connection) -> None:
    """Say what a process has from whoever started it, and wait."""
    status = Path("/proc/self/status").read_text("utf-8", errors="replace").splitlines()
    of_the_kernel = ("PPid:", "Umask:", "SigBlk:", "SigIgn:", "SigCgt:")
    said = {
        # readline sets the others in the C library's environment alone.
        "environment": {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")},
        "folder": os.getcwd(),
        "limits": [
            resource.getrlimit(limit) for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS)
        ],
        "status": [line for line in status if line.startswith(of_the_kernel)],
        "files": len(os.listdir("/proc/self/fd")),
        "output": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
        "sys": [sys.argv, sys.path],
        "process": multiprocessing.current_process().name,
        "main": [name for name in vars(sys.modules["__main__"]) if not name.startswith("__")],
        "threads": [thread.name for thread in threading.enumerate()],
    }
    writer.send_bytes(encode(Log("INFO", json.dumps(said))))
    reader.recv_bytes()
