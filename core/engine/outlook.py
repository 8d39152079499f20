"""When workers should be free, and whether a task should run twice. No clock of its own."""

from collections.abc import Iterator, Sequence

from core.engine.pace import Pace
from core.engine.pending import Peer
from core.engine.worker_handle import WorkerHandle
from core.intake.admission import Admitted

WORTH_A_COPY = 0.8  # of the time that the first run should still take
LATE_SAVING = 5.0  # seconds: a large picture on a slow disk takes two or three


class Outlook:
    """Forecasts from the learned pace."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def peers(self, workers: Sequence[WorkerHandle], now: float) -> tuple[Peer, ...]:
        """All of them, or none while no task has been timed."""
        peers = [self._peer(worker, now) for worker in workers]
        return tuple(peer for peer in peers if peer is not None)

    def _peer(self, worker: WorkerHandle, now: float) -> Peer | None:
        rate = self._pace.seconds_per_work(worker.name)
        if rate is None:
            return None
        return Peer(worker.name, self._busy_for(worker, rate, now), rate, worker.loras_soon)

    def _busy_for(self, worker: WorkerHandle, rate: float, now: float) -> float:
        """Seconds that its tasks should still take."""
        return self._left(worker, rate, now) + worker.work_ahead * rate

    def _left(self, worker: WorkerHandle, rate: float, now: float) -> float:
        """The same of what is on the device; what is late may be as late again."""
        if not worker.running:
            return 0.0
        return abs(worker.work * rate - (now - worker.busy_since))

    def worth_copying(
        self, idle: WorkerHandle, workers: Sequence[WorkerHandle], now: float
    ) -> Iterator[str]:
        """Leases of which `idle` should end a copy well before they end, the last to end first."""
        own = self._pace.seconds_per_work(idle.name)
        if own is None:
            return
        ends = [
            found
            for worker in workers
            if worker is not idle
            for found in self._ends(worker, self._pace.seconds_per_work(worker.name) or own, now)
        ]
        for seconds, lease_id, job in sorted(ends, key=lambda end: end[0], reverse=True):
            load = len(job.loads - idle.loras) * self._pace.load_seconds
            if load + job.work * own <= WORTH_A_COPY * seconds:
                yield lease_id

    def _ends(
        self, worker: WorkerHandle, rate: float, now: float
    ) -> Iterator[tuple[float, str, Admitted]]:
        """Seconds that each lease should still take, its id and its job; not those of groups."""
        for held, seconds in (
            (worker.running, self._left(worker, rate, now)),
            (worker.ahead, self._busy_for(worker, rate, now)),
        ):
            if len(held) == 1:
                lease_id, (_, active) = next(iter(held.items()))
                yield seconds, lease_id, active.job
        saving = now - worker.saving_since
        for lease_id, (_, active) in worker.saving.items():
            if saving > LATE_SAVING and lease_id not in worker.told:
                yield saving, lease_id, active.job
