"""How long a run still takes: what its workers have shown of themselves, laid over its tasks."""

from collections import deque
from collections.abc import Collection, Mapping
from statistics import mean

from core.events import TaskShape
from core.status.estimate import Lane, Speeds, seconds_to_end
from core.status.parts import Kind, Worker


class Forecast:
    """Learns how fast workers are, and foretells.

    Attributes:
        speeds: of workers.
    """

    def __init__(self) -> None:
        self.speeds = Speeds()
        self._loads: deque[float] = deque(maxlen=16)  # seconds from a worker's start to its model
        self._loras: set[str] = set()  # that a worker has loaded

    def loaded(self, worker: Worker, now: float) -> None:
        """A worker has its model."""
        if worker.starting is not None:
            self._loads.append(now - worker.starting)
        worker.starting = None
        worker.loras.clear()
        self.speeds.loaded(worker.name, now)

    def ended(self, worker: Worker, shape: TaskShape, now: float) -> None:
        """A worker has made a result."""
        new = set(shape.loras) - worker.loras
        worker.loras |= new
        self._loras |= new
        self.speeds.ended(worker.name, shape.kind, shape.work, now, len(new))

    def seconds_for(
        self, name: str, kind: Kind, workers: Collection[Worker], now: float
    ) -> float | None:
        """Seconds until all tasks of a kind have ended, with the workers that are for it now.

        A kind that no worker is for at this moment will have all of them. None: nobody knows.
        """
        if not kind.left:
            return 0.0
        there = [worker for worker in workers if worker.is_there]
        at_it = [worker for worker in there if worker.kind == name] or there
        lanes = [lane for w in at_it if (lane := self._lane(w, name, now)) is not None]
        missing = {lora for shape in kind.open for lora in shape.loras} - self._loras
        loads = len(missing) * self.speeds.load_seconds(name) if missing else 0.0
        return seconds_to_end(kind.work_left(), lanes, loads)

    def seconds_for_all(
        self, left: Mapping[str, float | None], workers: Collection[Worker]
    ) -> float | None:
        """Seconds until the end: kinds in work go on beside each other, the others follow.

        Args:
            left: what `seconds_for` says of each kind.
        """
        at_work = {worker.kind for worker in workers if worker.is_there}
        beside, after = 0.0, 0.0
        for kind, seconds in left.items():
            if seconds is None:
                return None
            if kind in at_work:
                beside = max(beside, seconds)
            elif seconds:
                after += seconds + self._load
        return beside + after

    @property
    def _load(self) -> float:
        return mean(self._loads) if self._loads else 0.0

    def _lane(self, worker: Worker, kind: str, now: float) -> Lane | None:
        rate, since = self.speeds.rate(worker.name, kind), self.speeds.since(worker.name)
        if rate is None:
            return None
        if worker.starting is not None:
            return Lane(rate, max(0.0, worker.starting + self._load - now))
        first = next(iter(worker.tasks.values()), None)
        if first is None or since is None or worker.kind != kind:
            return Lane(rate)
        if not self.speeds.knows(worker.name, kind) and now > since:
            rate = min(rate, first.work / (now - since))  # it is slower than others
        return Lane(rate, -min(now - since, first.work / rate))
