"""What a worker gets now: the next tasks, a copy of somebody's last one, or nothing yet."""

import math
import time
from collections.abc import Sequence

from core.engine.barrier import Barrier
from core.engine.batch import ActiveLease, Batch
from core.engine.outlook import Outlook
from core.engine.pace import Pace
from core.engine.pending import Worker
from core.engine.tail import TAIL
from core.engine.worker_handle import State, WorkerHandle

SHORT = 2.0  # seconds of expected work that may wait in a worker, and that it may wait behind


class Leasing:
    """Asks the batch for leases, with what is known of all workers.

    Args:
        handles: of all workers; the pool's own list, which changes.
        barrier: where workers wait for each other after every task.
        copies: the last tasks may run twice.
    """

    def __init__(
        self, handles: Sequence[WorkerHandle], pace: Pace, barrier: Barrier | None, copies: bool
    ) -> None:
        self._handles = handles
        self._pace = pace
        self._outlook = Outlook(pace)
        self._barrier = barrier
        self._copies = copies

    def group_for(self, handle: WorkerHandle, batch: Batch) -> list[ActiveLease]:
        """Leases that `handle` shall run together; empty if it has to wait."""
        if self._barrier is None:
            return self._next(handle, batch) or self._copy(handle, batch)
        busy = frozenset(h.name for h in self._handles if h.leases())
        if not self._barrier.may_start(handle.name, busy):
            return []
        group = self._next(handle, batch)
        if group:
            self._barrier.started(handle.name)
        return group

    def group_ahead_for(self, handle: WorkerHandle, batch: Batch) -> list[ActiveLease]:
        """Leases that busy `handle` shall go on with, so that its device need not wait for main.

        Only short ones behind short ones, for no slow worker, and while there are plenty: what is
        given is not taken back, neither for a better worker nor when the user interrupts.
        """
        rate = self._pace.seconds_per_work(handle.name)
        if self._barrier is not None or rate is None or handle.may_compile:
            return []
        if handle.work * rate > SHORT:  # first: long tasks are asked about in every turn of main
            return []
        serving = self._serving()
        if batch.waiting <= max(TAIL, 2 * handle.group_size) * len(serving):
            return []
        if not self._pace.keeps_up(handle.name, [h.name for h in serving]):
            return []
        if not handle.loras_soon <= handle.loras:
            return []  # it is loading one, and which it will hold then it alone knows
        most_work = SHORT / handle.group_size / rate if rate else math.inf
        return self._next(handle, batch, most_work)

    def may_come_to_idle(self) -> bool:
        """Somebody is idle and might get a task by the passing of time alone."""
        serving = self._serving()
        someone_idle = any(not h.running for h in serving)
        return self._barrier is None and someone_idle and any(h.leases() for h in serving)

    def _next(
        self, handle: WorkerHandle, batch: Batch, most_work: float = math.inf
    ) -> list[ActiveLease]:
        serving = self._serving()
        others = frozenset(h.name for h in serving if h is not handle)
        held = frozenset(lora for h in self._handles if h is not handle for lora in h.loras_soon)
        in_tail = batch.waiting <= TAIL * len(serving) and self._barrier is None
        peers = self._outlook.peers(serving, time.monotonic()) if in_tail else ()
        worker = Worker(
            handle.name,
            handle.loras,
            others,
            held,
            peers,
            self._pace.load_seconds,
            has_others=bool(handle.leases()),
            most_work=most_work,
        )
        # The last tasks are shared out, so that no worker idles beside a full group.
        most = min(handle.group_size, -(-batch.waiting // len(serving)))
        return batch.next_leases(worker, most)

    def _copy(self, handle: WorkerHandle, batch: Batch) -> list[ActiveLease]:
        """A second run of somebody's last task, where this worker would only wait for it."""
        if batch.waiting or not self._copies:
            return []
        for lease_id in self._outlook.worth_copying(handle, self._serving(), time.monotonic()):
            copy = batch.copy(lease_id, handle.name)
            if copy is not None:
                return [copy]
        return []

    def _serving(self) -> list[WorkerHandle]:
        """Those that take leases."""
        return [h for h in self._handles if h.state is State.SERVING and not h.dismissed]
