"""Runs on simulated devices in arithmetic: events and their times, without a second of waiting."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from core.events import TaskEnded, TaskShape, TaskStarted, WorkerState
from core.status.run_status import RunStatus
from core.status.tracker import RunTracker
from core.tasks import Result


@dataclass
class Clock:
    """A clock that stands where it is put."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class SimulatedDevice:
    """A device of one worker.

    Attributes:
        seconds: for a unit of work.
        loads_lora: seconds for a LoRA that it has not used yet.
        loads_model: seconds from the start to the first task.
        warms_up: seconds that the first task takes more.
        gives_out_ahead: it is given the next task before the present one ends.
    """

    name: str
    seconds: float
    loads_lora: float = 0.0
    loads_model: float = 0.0
    warms_up: float = 0.0
    gives_out_ahead: bool = True


@dataclass
class SimulatedRun:
    """Tasks on devices, each given to the first that is free, in their order.

    Attributes:
        factor: what a task takes on top of its work, by its place.
        statuses: how the tracker saw the run after each result, with the time.
    """

    tasks: Sequence[TaskShape]
    devices: Sequence[SimulatedDevice]
    factor: Callable[[int], float] = lambda place: 1.0
    clock: Clock = field(default_factory=Clock)
    statuses: list[tuple[float, RunStatus]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracker = RunTracker(memory=lambda devices: None, clock=self.clock, ticks=self.clock)

    def play(self, looks: Callable[[int], bool] = lambda ended: True) -> float:
        """Let it run; returns the moment of its end.

        Args:
            looks: whether to look at the status after so many results.
        """
        self.tracker.begin(self.tasks)
        for device in self.devices:
            self.tracker.hear(WorkerState(device.name, "loading the model", "generate"))
        ended = 0
        for at, event in sorted(self._events(), key=lambda one: one[0]):
            self.clock.now = at
            self.tracker.hear(event)
            if isinstance(event, TaskEnded):
                ended += 1
                if looks(ended):
                    self.statuses.append((at, self.tracker.status()))
        self.tracker.end()
        return self.clock.now

    def _events(self) -> Iterator[tuple[float, TaskStarted | TaskEnded | WorkerState]]:
        begin = self.clock.now
        free = [(begin + device.loads_model, n) for n, device in enumerate(self.devices)]
        heapq.heapify(free)
        loras: list[set[str]] = [set() for _ in self.devices]
        began = list(free)
        fresh = set(range(len(self.devices)))
        for at, n in sorted(began):
            yield at, WorkerState(self.devices[n].name, "ready", "generate")
        for place, shape in enumerate(self.tasks):
            at, n = heapq.heappop(free)
            device = self.devices[n]
            takes = shape.work * device.seconds * self.factor(place)
            takes += device.loads_lora * len(set(shape.loras) - loras[n])
            takes += device.warms_up * (n in fresh)
            fresh.discard(n)
            loras[n] |= set(shape.loras)
            told = at - 0.01 if device.gives_out_ahead and place >= len(self.devices) else at
            yield told, TaskStarted(f"t{place}", device.name, 1, shape=shape)
            result = Result(place, f"t{place}", "done", "x.png", takes, worker=device.name)
            yield at + takes, TaskEnded(result, 1, shape=shape)
            heapq.heappush(free, (at + takes, n))
