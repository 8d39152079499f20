"""One worker process as main sees it: its pipes, its state, its deadline, its restarts.

An incarnation's pipes are its own and have one writer and one reader each, so a killed
worker can neither hold a lock that another one needs nor leave half a message for it.
"""

import array
import fcntl
import os
import signal
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from core.devices.device import Device
from core.devices.load_turns import loading_environment
from core.engine.batch import ActiveLease, Batch
from core.fault_points import fault_point, send_half
from core.memory_modes import Mode
from core.messages import Lease, ToWorker, decode, encode
from core.paths import UTF8_MODE, WORKERS_DIFFER, for_worker, user_path
from core.processes.stall_watch import StallWatch
from core.processes.worker_start import Starter, WorkerMain, WorkerProcess
from core.tasks import with_paths
from core.worker_spec import WorkerSpec

# Of a worker's pipe: a group of leases that it does not read, which take a page (4 KiB) each at
# least, must not keep main waiting.
ORDERS_BYTES = 256 * 1024


class State(Enum):
    """The life of a worker; the value is shown to the user."""

    DOWN = "waiting to start"
    BOOTING = "starting"
    BOOTED = "waiting to load"
    LOADING = "loading the model"
    SERVING = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    RETIRED = "given up"


class WorkerHandle:
    """A worker slot: the same device over all incarnations of its process."""

    def __init__(
        self, device: Device, target: WorkerMain, spec: WorkerSpec, starter: Starter
    ) -> None:
        self.device = device
        self.name = device.label
        self.state = State.DOWN
        self.deadline: float | None = None  # monotonic time by which something must happen
        self.load_watch: StallWatch | None = None  # while it loads
        self.start_at = 0.0  # monotonic time of the next start while DOWN
        self.deaths_in_row = 0  # incarnations lost since the last finished task
        self.strikes = 0.0  # incarnations lost, less what finished tasks made up for
        self.loras: frozenset[str] = frozenset()
        self.group_size = spec.group_size
        self.fresh = True  # this incarnation has not finished a task yet
        self.has_changed_memory = False  # since out of memory at load: that is done once
        self.dismissed = False  # to leave when its leases are done
        self.leaves_because: str | None = None  # this incarnation said that it will end itself
        self.hung_up = False  # this incarnation says nothing more; it may still be there
        self.busy_since = 0.0  # monotonic time at which it began what it runs
        self.running: dict[str, tuple[Batch, ActiveLease]] = {}
        self.ahead: dict[str, tuple[Batch, ActiveLease]] = {}  # begun when `running` is done
        self.saving: dict[str, tuple[Batch, ActiveLease]] = {}
        self.saving_since = 0.0  # monotonic time at which the newest of them was drawn
        self.told: set[str] = set()  # leases whose end main has read, and not settled yet
        self.undelivered: set[str] = set()  # leases that were sent and never got there
        self.kill_reason: str | None = None  # set when main itself ordered the death
        self.process: WorkerProcess | None = None
        self._starter = starter
        self._target = target
        self._spec = spec
        self._to_worker: Connection | None = None
        self.from_worker: Connection | None = None

    @property
    def memory(self) -> Mode:
        """The mode in which its next incarnation loads the model."""
        return self._spec.memory

    def load_smaller(self, mode: Mode) -> None:
        """Have the next incarnation load the model in a mode that takes less memory."""
        self._spec = replace(self._spec, memory=mode)
        self.has_changed_memory = True

    @property
    def alive(self) -> bool:
        return self.process is not None

    @property
    def on_its_way_out(self) -> bool:
        """Killed, or expected to leave: its deadline is for that, whatever it still says."""
        return self.kill_reason is not None or self.state is State.STOPPING

    @property
    def takes_leases(self) -> bool:
        """It is free, and nothing speaks against another task."""
        return not self.running and self._is_open_for_leases

    @property
    def takes_leases_ahead(self) -> bool:
        """It is busy, has nothing to go on with, and could be sent something."""
        if not self.running or self.ahead or not self._is_open_for_leases:
            return False
        return not self._has_unread_orders  # or the pipe might be full, and main would wait

    @property
    def _is_open_for_leases(self) -> bool:
        if self.state is not State.SERVING or self.dismissed:
            return False
        if self.on_its_way_out or self.exit_code is not None:
            return False
        # What it saves, and what main has not published yet, would be lost with main.
        unpublished = len(self.saving) + len(self.running)
        if unpublished > self._spec.most_saving:
            return False
        return not any(active.alone for _, active in self.leases())

    @property
    def _has_unread_orders(self) -> bool:
        assert self._to_worker is not None
        unread = array.array("i", [0])  # bytes in the pipe
        fcntl.ioctl(self._to_worker.fileno(), termios.FIONREAD, unread)
        return unread[0] > 0

    @property
    def exit_code(self) -> int | None:
        """Of the incarnation; None while it runs."""
        return self.process.exit_code if self.process else None

    def start(self) -> None:
        """Start a new incarnation. Call it from a thread that outlives the worker.

        Raises:
            Exception: no process can be started now.
        """
        task_reader, self._to_worker = Pipe(duplex=False)
        with suppress(OSError):  # where the user has many large pipes already
            fcntl.fcntl(self._to_worker.fileno(), fcntl.F_SETPIPE_SZ, ORDERS_BYTES)
        self.from_worker, result_writer = Pipe(duplex=False)
        try:
            self.process = self._starter.start(
                self._target,
                (
                    self._spec.with_paths(for_worker),
                    task_reader,
                    result_writer,
                ),
                self.name,
                self._birth_environment(),
            )
        except Exception:
            self._close_pipes()
            raise
        finally:
            # Main must not hold the worker's ends: EOF is how each side learns of a death.
            task_reader.close()
            result_writer.close()
        self.state = State.BOOTING
        self.kill_reason = None
        self.leaves_because = None
        self.hung_up = False
        self.fresh = True
        self.loras = frozenset()

    def _birth_environment(self) -> dict[str, str]:
        """What has to be set before anything in the child reads it."""
        threads = str(self._spec.threads)
        environment = {
            "CUDA_VISIBLE_DEVICES": self.device.mask,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **loading_environment(self._spec),
            **UTF8_MODE,
        }
        if self.device.kind == "cpu":
            # The same sums whatever the number of threads; see workers.reproducible.
            environment["MKL_CBWR"] = os.environ.get("MKL_CBWR", "AUTO,STRICT")
        if self.device.kind == "cuda" and self.device.mask.replace(",", "").isdecimal():
            # NVML, which numbered the devices, counts in this order.
            environment["CUDA_DEVICE_ORDER"] = os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        return environment

    def send(self, message: ToWorker) -> bool:
        """Send a message; False if the worker is gone (its sentinel will tell)."""
        assert self._to_worker is not None
        if WORKERS_DIFFER and isinstance(message, Lease):
            message = _with_workers_paths(message)
        pipe, data = self._to_worker, encode(message)
        fault_point("main.mid-send", lambda: send_half(pipe, data))
        try:
            pipe.send_bytes(data)
        except (BrokenPipeError, OSError):
            return False
        return True

    def receive(self) -> Iterator[Any]:
        """All messages that have arrived; ends at a closed pipe too."""
        assert self.from_worker is not None
        try:
            while self.from_worker.poll():
                yield decode(self.from_worker.recv_bytes())
        except (EOFError, OSError):
            self.hung_up = True

    @property
    def has_unread_words(self) -> bool:
        """It said something that main did not read yet, or hung up."""
        if self.from_worker is None or self.hung_up:
            return False
        try:
            return self.from_worker.poll()
        except OSError:
            return False

    def kill(self, reason: str) -> None:
        """SIGKILL the incarnation; works on a stopped or stuck process too."""
        self.kill_reason = reason
        assert self.process is not None
        self.process.kill()

    def watch_load(self) -> None:
        """Begin to see whether the incarnation gets on with its load."""
        assert self.process is not None
        self.load_watch = StallWatch(self.process.pid, time.monotonic())

    def describe_death(self) -> str:
        """How the dead incarnation ended, in words."""
        if self.process is not None and self.process.orphaned:
            return "the fork server has died, and its forks with it"
        code = self.exit_code
        if code is None:
            return "it does not react to SIGKILL"
        if code >= 0:
            why = f" ({self.leaves_because})" if self.leaves_because else ""
            return f"its process ended with exit code {code}{why}"
        try:
            return f"its process was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"its process was ended by signal {-code}"

    def bury(self) -> None:
        """Release everything that belonged to the dead incarnation."""
        self._close_pipes()
        if self.process is not None and self.exit_code is not None:
            self.process.close()
        self.process = None
        self.deadline = None
        self.load_watch = None

    def _close_pipes(self) -> None:
        for connection in (self._to_worker, self.from_worker):
            if connection is not None:
                connection.close()
        self._to_worker = self.from_worker = None

    def leases(self) -> list[tuple[Batch, ActiveLease]]:
        """Every lease that is out: on the device, behind that, and being saved."""
        return [*self.running.values(), *self.ahead.values(), *self.saving.values()]

    @property
    def loras_soon(self) -> frozenset[str]:
        """Those that it holds, and what it is loading for the task that it was given."""
        given = [*self.running.values(), *self.ahead.values()]
        coming = frozenset[str]().union(*(active.job.loads for _, active in given))
        soon = self.loras | coming
        return soon if len(soon) <= self._spec.max_resident_loras else coming

    @property
    def work(self) -> float:
        """Expected work of what it runs."""
        return sum(active.job.work for _, active in self.running.values())

    @property
    def work_ahead(self) -> float:
        """The same of what it begins then."""
        return sum(active.job.work for _, active in self.ahead.values())

    @property
    def may_compile(self) -> bool:
        """What it runs next may be compiled first; later it says so itself (`Compiling`)."""
        return self.fresh and self._spec.may_compile

    def set_deadline(self, seconds: float | None) -> None:
        self.deadline = None if seconds is None else time.monotonic() + seconds

    def forgive(self, seconds: float) -> None:
        """Do as if that time had not passed."""
        self.busy_since += seconds
        self.saving_since += seconds
        if self.deadline is not None:
            self.deadline += seconds
        if self.load_watch is not None:
            self.load_watch.forgive(seconds)


def _with_workers_paths(lease: Lease) -> Lease:
    """The same files, named for a process with another encoding of names."""

    def named(path: str) -> str:
        return for_worker(str(user_path(path, "path")))

    return replace(
        lease,
        task=with_paths(lease.task, named),
        partial_path=for_worker(lease.partial_path),
        files={named(path): sha256 for path, sha256 in lease.files.items()},
    )
