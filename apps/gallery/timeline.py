"""What every worker did when: from the attempts in the record, and the states that were noted.

The record knows when each attempt was given and ended. A worker has its next task before it ends
the one before, so that a task begins when it was given and the one before has ended. What a worker
did between tasks is known where a command noted its states (`apps.gallery.states`); else it
counts as waiting.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from apps.gallery.states import StateChange
from core.store.ledger_reading import RecordedLease

Doing = Literal["drawing", "failed", "loading", "waiting", "dead"]
PAUSE = 600.0  # seconds without any work after which another run begins
_DOING: dict[str, Doing | None] = {
    "starting": "loading",
    "waiting to load": "loading",
    "loading the model": "loading",
    "ready": "waiting",
    "given up": "dead",
    "waiting to start": "dead",
    "stopping": None,
    "stopped": None,
}
ENDS_WELL = ("done", "interrupted", "released")


@dataclass(frozen=True)
class Segment:
    """What a worker did from one moment to another, in Unix time.

    Attributes:
        key: of the task that it worked at.
        outcome: how that ended, as in the record.
    """

    doing: Doing
    start: float
    end: float
    key: str | None = None
    outcome: str | None = None


@dataclass(frozen=True)
class Session:
    """One run: the workers that took part in it, by name, with what they did.

    Attributes:
        tasks: ended well, by worker.
    """

    start: float
    end: float
    lanes: dict[str, list[Segment]] = field(default_factory=dict)

    def seconds(self, worker: str, doing: Doing) -> float:
        """How long a worker did one thing."""
        return sum(s.end - s.start for s in self.lanes[worker] if s.doing == doing)


def sessions_of(
    leases: Sequence[RecordedLease],
    seconds: Mapping[str, float],
    changes: Sequence[StateChange] = (),
    now: float | None = None,
) -> list[Session]:
    """The runs of a folder, the oldest first.

    Args:
        leases: in the order in which they were given.
        seconds: what each task took in the end, by its key; 0 where unknown.
        changes: of workers' states, in their order.
        now: the end of what still runs; None if nothing does.
    """
    work = _work(leases, seconds, now)
    spans = _spans(work, changes)
    found = []
    for start, end in spans:
        lanes: dict[str, list[Segment]] = defaultdict(list)
        mine = [c for c in changes if start <= c.at <= end]
        for worker, segments in work.items():
            lanes[worker] += [s for s in segments if start <= s.start and s.end <= end]
        for worker in {*(c.worker for c in mine), *(w for w, s in lanes.items() if s)}:
            own = [c for c in mine if c.worker == worker]
            lanes[worker] = _filled(lanes[worker], own, start, end)
        lanes = {w: lanes[w] for w in sorted(lanes, key=_by_number) if lanes[w]}
        if lanes:
            found.append(Session(start, end, dict(lanes)))
    return found


def _by_number(worker: str) -> tuple[str, int]:
    """gpu2 before gpu10."""
    name = worker.rstrip("0123456789")
    digits = worker[len(name) :]
    return (name, int(digits) if digits else -1)


def _work(
    leases: Sequence[RecordedLease], seconds: Mapping[str, float], now: float | None
) -> dict[str, list[Segment]]:
    """What workers did at tasks, each after the other."""
    lengths = [lease.ended - lease.given for lease in leases if lease.ended is not None]
    usual = median(lengths) if lengths else 1.0
    work: dict[str, list[Segment]] = defaultdict(list)
    free: dict[str, float] = {}
    for lease in sorted(leases, key=lambda lease: lease.ended or float("inf")):
        end = lease.ended
        if end is None:
            end = now if now is not None else lease.given + usual
        elif lease.outcome == "interrupted":  # closed by the next run, perhaps days later
            end = min(end, lease.given + usual)
        start = max(lease.given, free.get(lease.worker, 0.0))
        took = seconds.get(lease.key, 0.0)
        if lease.outcome == "done" and took > 0:
            start = max(start, end - took)
        start = min(start, end)
        free[lease.worker] = max(free.get(lease.worker, 0.0), end)
        well = lease.outcome is None or lease.outcome in ENDS_WELL
        doing: Doing = "drawing" if well else "failed"
        work[lease.worker].append(Segment(doing, start, end, lease.key, lease.outcome))
    return work


def _spans(
    work: Mapping[str, Sequence[Segment]], changes: Sequence[StateChange]
) -> list[tuple[float, float]]:
    """Beginning and end of each run: they lie apart by `PAUSE` seconds without anything."""
    busy = [(s.start, s.end) for segments in work.values() for s in segments]
    busy += [(change.at, change.at) for change in changes]
    spans: list[tuple[float, float]] = []
    for start, end in sorted(busy):
        if spans and start - spans[-1][1] <= PAUSE:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
    return spans


def _filled(
    work: Sequence[Segment], changes: Sequence[StateChange], start: float, end: float
) -> list[Segment]:
    """The work of one worker, and between it what its state says."""
    marks: list[tuple[float, Doing | None]] = [(c.at, _DOING.get(c.state)) for c in changes]
    begins = marks[0][0] if marks else work[0].start if work else start
    between: list[tuple[float, Doing | None]] = marks or [(begins, "waiting")]
    filled: list[Segment] = []
    at = begins
    for segment in [*sorted(work, key=lambda s: s.start), None]:
        until = end if segment is None else segment.start
        filled += _states_between(between, at, until, ended=segment is None and not marks)
        if segment is not None:
            filled.append(segment)
            at = max(at, segment.end)
    return filled


def _states_between(
    marks: Sequence[tuple[float, Doing | None]], start: float, end: float, ended: bool
) -> list[Segment]:
    """What the states say of a time; nothing of one after the last task, if none were noted."""
    if ended or end <= start:
        return []
    found: list[Segment] = []
    for number, (at, doing) in enumerate(marks):
        until = marks[number + 1][0] if number + 1 < len(marks) else end
        first, last = max(at, start), min(until, end)
        if doing is None or last <= first:
            continue
        if found and found[-1].doing == doing and found[-1].end == first:
            found[-1] = Segment(doing, found[-1].start, last)
        else:
            found.append(Segment(doing, first, last))
    return found
