"""When a run ends: speeds learned from what has ended, laid over what is still to be done. Pure.

Times are seconds on any clock that runs evenly, and are handed in. A task's work is in the unit of
its kind (`core.intake.task_kinds.TaskKind.work`).
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

REMEMBERED = 16  # stretches of work of one worker with one kind of task
TOGETHER = 0.05  # of the usual time: a result that follows so soon was made together with others
HICCUP = 5.0  # times the usual seconds per work: a stall, and no sign of what is to come
FEW = 5  # stretches: of fewer none is called a hiccup
TAIL = 2  # tasks for each worker that are laid out one by one at the end


@dataclass(frozen=True)
class Lane:
    """A worker and how fast it goes.

    Attributes:
        rate: work per second.
        free_in: seconds until it can begin with one of the open tasks. Negative: so long ago it
            began with one.
    """

    rate: float
    free_in: float = 0.0


def seconds_to_end(
    tasks: Mapping[float, int], lanes: Sequence[Lane], more_seconds: float = 0.0
) -> float | None:
    """Seconds until workers have done tasks of one kind; None where nobody works on them.

    The longest come first, each to the worker that ends it first, as the scheduler has it. All but
    the last few are treated as a fluid.

    Args:
        tasks: how many there are of each amount of work.
        more_seconds: of one worker's time for what is no task, such as loads of LoRAs.
    """
    if not lanes:
        return None
    sizes = sorted(tasks.items(), reverse=True)
    count = sum(tasks.values())
    tail = min(count, TAIL * len(lanes))
    fluid, ones = 0.0, []
    for size, number in sizes:
        flowing = min(number, max(0, count - tail))
        count -= number
        fluid += size * flowing
        ones += [size] * (number - flowing)
    fluid += more_seconds * sum(lane.rate for lane in lanes) / len(lanes)
    level = _level(fluid, lanes)
    free = [lane.free_in if level is None else max(lane.free_in, level) for lane in lanes]
    end = level or 0.0
    for size in ones:
        ends = [at + size / lane.rate for at, lane in zip(free, lanes, strict=True)]
        first = min(range(len(ends)), key=ends.__getitem__)
        free[first] = ends[first]
        end = max(end, ends[first])
    return max(0.0, end)


def _level(work: float, lanes: Sequence[Lane]) -> float | None:
    """The moment at which workers that are all busy until then have done so much work."""
    if work <= 0:
        return None
    rate = due = 0.0
    level = 0.0
    ordered = sorted(lanes, key=lambda lane: lane.free_in)
    for place, lane in enumerate(ordered):
        rate += lane.rate
        due += lane.rate * lane.free_in
        level = (work + due) / rate
        if place + 1 == len(ordered) or level <= ordered[place + 1].free_in:
            break
    return level


@dataclass
class _Stretch:
    """From one result of a worker to its next one, and those that came together with it."""

    work: float
    seconds: float
    loads: int = 0
    is_first: bool = False


Key = tuple[str, str]
"""A worker and a kind of task."""


class Speeds:
    """How fast workers go, learned from the times between their results.

    A first result, which may wait for a compiler, and one for which a LoRA was loaded say how long
    that took, once others have said how long a task takes by itself.
    """

    def __init__(self) -> None:
        self._usual: dict[Key, deque[_Stretch]] = {}
        self._unusual: dict[Key, deque[_Stretch]] = {}
        self._newest: dict[Key, _Stretch] = {}
        self._rates: dict[Key, float | None] = {}  # of the usual ones, once asked for
        self._since: dict[str, float] = {}  # when a worker began with what it does
        self._fresh: set[str] = set()  # workers without a result since they loaded their model

    def loaded(self, worker: str, at: float) -> None:
        """A worker has loaded a model: its next result may take longer than usual."""
        self._fresh.add(worker)
        self._since[worker] = at

    def began(self, worker: str, at: float) -> None:
        """A worker that had nothing to do has something."""
        self._since[worker] = at

    def since(self, worker: str) -> float | None:
        """When a worker began with what it does; None for one that has done nothing yet."""
        return self._since.get(worker)

    def ended(self, worker: str, kind: str, work: float, at: float, loads: int = 0) -> None:
        """A worker has made a result.

        Args:
            loads: LoRAs that it loaded for it.
        """
        began, self._since[worker] = self._since.get(worker), at
        if began is None:
            return
        key, seconds = (worker, kind), max(0.0, at - began)
        newest = self._newest.get(key)
        usual = self._own_rate(key) or (_rate([newest]) if newest is not None else None)
        self._rates.pop(key, None)
        if newest is not None and usual is not None and seconds < TOGETHER * work / usual:
            newest.work += work
            newest.seconds += seconds
            return
        stretch = self._newest[key] = _Stretch(work, seconds, loads, worker in self._fresh)
        self._fresh.discard(worker)
        kept = self._unusual if stretch.is_first or loads else self._usual
        kept.setdefault(key, deque(maxlen=REMEMBERED)).append(stretch)

    def lost(self, worker: str, at: float) -> None:
        """What a worker was doing came to nothing, which says nothing about its speed."""
        self._since[worker] = at

    def knows(self, worker: str, kind: str) -> bool:
        """A worker has shown how fast it is."""
        return (worker, kind) in self._newest

    def rate(self, worker: str, kind: str) -> float | None:
        """Work per second of a worker, or of others while it has done nothing; else None."""
        own = self._own_rate((worker, kind))
        if own is not None:
            return own
        everybody = [key for key in self._newest if key[1] == kind]
        usual = _rate([s for key in everybody for s in self._usual.get(key, ())])
        first = next(iter(self._unusual.get((worker, kind), ())), None)
        if first is None or usual is None:
            return usual or _rate([s for key in everybody for s in self._unusual.get(key, ())])
        seconds = first.seconds - self._warm_up(kind) - first.loads * self.load_seconds(kind)
        return first.work / seconds if seconds > 0 else usual

    def load_seconds(self, kind: str) -> float:
        """Seconds that a LoRA adds to the task that loads it; 0 while nobody knows."""
        extra = [(seconds, stretch) for seconds, stretch in self._extra(kind) if stretch.loads]
        extra = [one for one in extra if not one[1].is_first] or extra
        loads = sum(stretch.loads for _, stretch in extra)
        return sum(seconds for seconds, _ in extra) / loads if loads else 0.0

    def _warm_up(self, kind: str) -> float:
        """Seconds that a worker's first task takes more than others."""
        extra = [seconds for seconds, s in self._extra(kind) if s.is_first and not s.loads]
        return median(extra) if extra else 0.0

    def _extra(self, kind: str) -> list[tuple[float, _Stretch]]:
        """Unusual stretches, with the seconds that they took more than a usual one."""
        found = []
        for key, stretches in self._unusual.items():
            rate = self._own_rate(key) if key[1] == kind else None
            if rate is not None:
                found += [(max(0.0, s.seconds - s.work / rate), s) for s in stretches]
        return found

    def _own_rate(self, key: Key) -> float | None:
        if key not in self._rates:
            self._rates[key] = _rate(_without_hiccups(self._usual.get(key, ())))
        return self._rates[key]


def _without_hiccups(stretches: Collection[_Stretch]) -> Collection[_Stretch]:
    if len(stretches) < FEW or not all(stretch.work for stretch in stretches):
        return stretches
    most = HICCUP * median(s.seconds / s.work for s in stretches)
    return [s for s in stretches if s.seconds <= most * s.work]


def _rate(stretches: Collection[_Stretch]) -> float | None:
    seconds = sum(stretch.seconds for stretch in stretches)
    work = sum(stretch.work for stretch in stretches)
    return work / seconds if seconds > 0 and work > 0 else None
