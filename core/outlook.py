"""When workers should be free, and whether a task should run twice. No clock of its own."""

from collections.abc import Iterator, Sequence

from core.pace import Pace
from core.scheduler import Peer
from core.worker_handle import WorkerHandle

WORTH_A_COPY = 0.8  # of the time that the first run should still take


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
        return Peer(worker.name, self._busy_for(worker, rate, now), rate)

    def _busy_for(self, worker: WorkerHandle, rate: float, now: float) -> float:
        """Seconds that its task should still take; what is late may be as late again."""
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
        busy = [w for w in workers if len(w.running) == 1 and w is not idle]
        rest = {w.name: self._busy_for(w, self._rate(w, own), now) for w in busy}
        for worker in sorted(busy, key=lambda w: rest[w.name], reverse=True):
            if worker.work * own <= WORTH_A_COPY * rest[worker.name]:
                yield next(iter(worker.running))

    def _rate(self, worker: WorkerHandle, otherwise: float) -> float:
        return self._pace.seconds_per_work(worker.name) or otherwise
