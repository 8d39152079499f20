"""One incarnation of a worker: its process and its two pipes.

The pipes are its own and have one writer and one reader each, so a killed worker can neither
hold a lock that another one needs nor leave half a message for it.
"""

import array
import fcntl
import os
import signal
import termios
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from core.devices.device import Device
from core.devices.load_turns import loading_environment
from core.fault_points import fault_point, send_half
from core.messages import ToWorker, decode, encode
from core.paths import UTF8_MODE, WORKERS_DIFFER, for_worker
from core.processes.activity import activity_of
from core.processes.message_reader import MessageReader
from core.processes.process_start import Starter
from core.processes.workers_paths import with_workers_paths
from core.worker_spec import WorkerSpec

WorkerMain = Callable[[WorkerSpec, Connection, Connection], None]

# Of a worker's pipe: a group of leases that it does not read, which take a page (4 KiB) each at
# least, must not keep main waiting.
ORDERS_BYTES = 256 * 1024


class WorkerLink:
    """A worker process, from its start to its end.

    Args:
        name: of the process.
        target: what the process runs.

    Raises:
        Exception: no process can be started now.
    """

    def __init__(
        self, name: str, device: Device, spec: WorkerSpec, starter: Starter, target: WorkerMain
    ) -> None:
        task_reader, self._to_worker = Pipe(duplex=False)
        with suppress(OSError):  # where the user has many large pipes already
            fcntl.fcntl(self._to_worker.fileno(), fcntl.F_SETPIPE_SZ, ORDERS_BYTES)
        self._from_worker, result_writer = Pipe(duplex=False)
        try:
            self._process = starter.start(
                target,
                (spec.with_paths(for_worker), task_reader, result_writer),
                name,
                birth_environment(device, spec),
            )
        except BaseException:
            self._close_pipes()
            raise
        finally:
            # Main must not hold the worker's ends: EOF is how each side learns of a death.
            task_reader.close()
            result_writer.close()
        self._reader = MessageReader(self._from_worker)
        self.messages = self._from_worker.fileno()
        self.sentinel = self._process.sentinel

    @property
    def exit_code(self) -> int | None:
        """The worker's exit code: None while it runs, -n after signal n."""
        return self._process.exit_code

    @property
    def orphaned(self) -> bool:
        """Whether it ended with the fork server, through no fault of its own."""
        return self._process.orphaned

    @property
    def hung_up(self) -> bool:
        """Whether the worker has closed its pipe; it may still be there."""
        return self._reader.hung_up

    @property
    def has_word(self) -> bool:
        """Whether the worker said something that was not read yet, or hung up."""
        return self._reader.has_more

    @property
    def reads_along(self) -> bool:
        """Whether the worker has read everything that it was sent."""
        unread = array.array("i", [0])  # bytes in the pipe
        fcntl.ioctl(self._to_worker.fileno(), termios.FIONREAD, unread)
        return unread[0] == 0

    @property
    def progress(self) -> object:
        """Changes whenever it computes or reads."""
        return activity_of(self._process.pid)

    def send(self, message: ToWorker) -> bool:
        """Send a message; False if the worker is gone (its sentinel will tell)."""
        if WORKERS_DIFFER:
            message = with_workers_paths(message)
        pipe, data = self._to_worker, encode(message)
        fault_point("main.mid-send", lambda: send_half(pipe, data))
        try:
            pipe.send_bytes(data)
        except OSError:
            return False
        return True

    def receive(self) -> list[Any]:
        """Messages that have arrived: what the pipe holds, so that others have their turn."""
        return [decode(data) for data in self._reader.read()]

    def last_words(self) -> list[Any]:
        """All messages of a worker that is dead."""
        return [decode(data) for data in self._reader.read_all()]

    def kill(self) -> None:
        """SIGKILL; works on a stopped or stuck process too."""
        self._process.kill()

    def describe_death(self) -> str:
        """How the worker ended, in words for the user."""
        if self.orphaned:
            return "the fork server has died, and its forks with it"
        code = self.exit_code
        if code is None:
            return "it does not react to SIGKILL"
        if code >= 0:
            return f"its process ended with exit code {code}"
        try:
            return f"its process was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"its process was ended by signal {-code}"

    def close(self) -> None:
        """Release everything that belongs to it, and leave alone a process that does not die."""
        self._close_pipes()
        if self.exit_code is not None:
            self._process.close()

    def _close_pipes(self) -> None:
        self._to_worker.close()
        self._from_worker.close()


def birth_environment(device: Device, spec: WorkerSpec) -> dict[str, str]:
    """What has to be set before anything in the worker reads it."""
    threads = str(spec.threads)
    environment = {
        "CUDA_VISIBLE_DEVICES": device.mask,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **loading_environment(spec),
        **UTF8_MODE,
    }
    if device.kind == "cpu":
        # The same sums whatever the number of threads; see workers.reproducible.
        environment["MKL_CBWR"] = os.environ.get("MKL_CBWR", "AUTO,STRICT")
    if device.kind == "cuda" and device.mask.replace(",", "").isdecimal():
        # NVML, which numbered the devices, counts in this order.
        environment["CUDA_DEVICE_ORDER"] = os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return environment
