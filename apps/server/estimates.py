"""When a job begins and ends, and when there is room again: forecasts from what waits. Pure.

The engine serves higher priorities first, owners of one priority equally, and the jobs of one
owner about in their order (`core.engine.scheduler`). As a fluid this has a closed form: when an
owner has been served x, every other one of its priority has been served x, too, or all it has.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

Share = tuple[int, str]
"""A priority and an owner."""

REMEMBERED = 64  # tasks of a kind
OUTLIERS = 0.1  # of them, at each end: a first task also waits for a compiler
UNKNOWN_WAIT = 30  # seconds to come again in, while no task has shown how long one takes
LONGEST_WAIT = 24 * 3600


@dataclass(frozen=True)
class Estimate:
    """What is expected of a job.

    Attributes:
        position: tasks without a result that come before the first of the job; 0: it is next.
        starts_in: seconds; None while nobody knows how long tasks take.
        ends_in: seconds.
    """

    position: int
    starts_in: float | None
    ends_in: float | None


@dataclass
class TaskSeconds:
    """How long tasks take, by kind, learned from those that were done."""

    _seen: dict[str, deque[float]] = field(default_factory=dict)
    _means: dict[str, float] = field(default_factory=dict)

    def learn(self, kind: str, seconds: float) -> None:
        """Note a finished task."""
        seen = self._seen.setdefault(kind, deque(maxlen=REMEMBERED))
        seen.append(seconds)
        self._means[kind] = _trimmed_mean(seen)

    def of(self, kind: str) -> float | None:
        """Seconds of a task of a kind, or of any kind while none of it is known; else None."""
        if kind in self._means:
            return self._means[kind]
        return sum(self._means.values()) / len(self._means) if self._means else None

    def total(self, tasks: Mapping[str, int]) -> float | None:
        """Device seconds of tasks, given as their number by kind."""
        if not self._means:
            return None
        return sum(count * (self.of(kind) or 0.0) for kind, count in tasks.items())


def _trimmed_mean(values: Iterable[float]) -> float:
    ordered = sorted(values)
    cut = int(len(ordered) * OUTLIERS)
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)


def estimate(
    share: Share,
    before: Mapping[str, int],
    own: Mapping[str, int],
    waiting: Mapping[Share, Mapping[str, int]],
    seconds: TaskSeconds,
    workers: int,
) -> Estimate:
    """Forecast the begin and the end of a job.

    Args:
        share: the job's.
        before: tasks without a result of the same share's earlier jobs, their number by kind.
        own: the same of the job itself.
        waiting: the same of every share, the job's own tasks included.
        seconds: how long tasks take.
        workers: how many work at them; all on whatever is next. While there is none, nobody
            knows when there will be.
    """
    counts = {key: float(sum(tasks.values())) for key, tasks in waiting.items()}
    position = round(_served_when(share, float(sum(before.values())), counts))
    first, mine = seconds.total(before), seconds.total(own)
    if first is None or mine is None or workers < 1:
        return Estimate(position, None, None)
    work = {key: seconds.total(tasks) or 0.0 for key, tasks in waiting.items()}
    starts_in = _served_when(share, first, work) / workers
    ends_in = _served_when(share, first + mine, work) / workers
    at_once = max(1, min(workers, sum(own.values())))
    return Estimate(position, starts_in, max(ends_in, starts_in + mine / at_once))


def _served_when(share: Share, amount: float, waiting: Mapping[Share, float]) -> float:
    """What all shares together have been served when one of them has been served an amount."""
    priority, _ = share
    higher = sum(all_ for (level, _), all_ in waiting.items() if level > priority)
    beside = sum(
        min(all_, amount)
        for other, all_ in waiting.items()
        if other[0] == priority and other != share
    )
    return higher + beside + amount


def retry_after(excess: int, seconds_each: float | None, workers: int, owners: int = 1) -> int:
    """Whole seconds until so many tasks less wait.

    Args:
        excess: tasks that have to end before there is room.
        owners: who shares the workers; 1 where anybody's tasks count.
    """
    if seconds_each is None:
        return UNKNOWN_WAIT
    wait = ceil(excess * seconds_each * max(1, owners) / max(1, workers))
    return min(max(1, wait), LONGEST_WAIT)


class Backlog:
    """Tasks without a result, by share and job; kept up as jobs come and tasks end."""

    def __init__(self) -> None:
        self.shares: dict[Share, Counter[str]] = {}
        self._jobs: dict[Share, dict[int, Counter[str]]] = {}  # by number, in order

    def add(self, share: Share, job: int, tasks: Mapping[str, int]) -> None:
        """A job has come, later than all before it."""
        if tasks:
            self._jobs.setdefault(share, {})[job] = Counter(tasks)
            self.shares.setdefault(share, Counter()).update(tasks)

    def settle(self, share: Share, job: int, kind: str) -> None:
        """A task has its result."""
        jobs = self._jobs.get(share)
        left = jobs.get(job) if jobs else None
        if jobs is None or left is None or not left[kind]:
            return
        for counter in (left, self.shares[share]):
            counter[kind] -= 1
            if not counter[kind]:
                del counter[kind]
        if not left:
            del jobs[job]
        if not jobs:
            del self._jobs[share], self.shares[share]

    def of(self, share: Share, job: int) -> Mapping[str, int]:
        """Tasks of one job."""
        return self._jobs.get(share, {}).get(job, Counter())

    def before(self, share: Share, job: int) -> Counter[str]:
        """Tasks of the same share's jobs before one."""
        jobs = self._jobs.get(share, {})
        if job not in jobs:
            return Counter()
        before: Counter[str] = Counter()
        behind: Counter[str] = Counter(jobs[job])
        # From both ends: a job that is asked about is mostly the newest, or the next.
        for (first, early), (last, late) in zip(jobs.items(), reversed(jobs.items()), strict=True):
            if first == job:
                return before
            if last == job:
                return self.shares[share] - behind
            for kind, count in early.items():
                before[kind] += count
            for kind, count in late.items():
                behind[kind] += count
        return before

    def waiting(self, owner: str | None = None) -> Counter[str]:
        """Tasks of one owner, or of all, by kind."""
        found: Counter[str] = Counter()
        for (_, known), tasks in self.shares.items():
            if owner in (None, known):
                found.update(tasks)
        return found

    @property
    def owners(self) -> int:
        """How many owners have tasks."""
        return len({owner for _, owner in self.shares})
