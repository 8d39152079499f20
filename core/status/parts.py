"""What a tracker keeps of one kind of task, and of one worker."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.devices.device import Device
from core.events import TaskShape

RATE_OVER = 64  # results
GONE = ("given up", "stopped", "stopping")  # states of workers that do nothing more

Key = tuple[int, str]
"""A task: the number of its job, and its name."""


@dataclass
class Kind:
    """Tasks of one kind.

    Attributes:
        open: those without a result whose shape is known.
        expected: tasks more, of which only the number is known.
        seen: how many shapes were seen, and the sum of their work.
    """

    total: int = 0
    open: Counter[TaskShape] = field(default_factory=Counter)
    expected: int = 0
    seen: tuple[int, float] = (0, 0.0)
    done: int = 0
    failed: int = 0
    not_tried: int = 0
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=RATE_OVER))
    began: float | None = None  # when the first of `ends` was begun

    def add(self, shapes: Iterable[TaskShape]) -> None:
        new = Counter(shapes)
        self.open.update(new)
        self.total += new.total()
        work = sum(shape.work * count for shape, count in new.items())
        self.seen = (self.seen[0] + new.total(), self.seen[1] + work)

    def settle(self, shape: TaskShape) -> None:
        """A task is not open any more."""
        count = self.open.get(shape, 0)
        if count > 1:
            self.open[shape] = count - 1
        elif count:
            del self.open[shape]
        else:
            self.expected = max(0, self.expected - 1)
            self.total += 1

    def came(self, at: float) -> None:
        """A result has come."""
        if len(self.ends) == RATE_OVER:
            self.began = self.ends[0]
        self.ends.append(at)

    def per_minute(self, now: float) -> float | None:
        if self.began is None or not self.ends:
            return None
        last, count = self.ends[-1], len(self.ends)
        usual = (last - self.began) / count
        until = last if now - last <= 2 * usual or not self.left else now
        return 60 * count / (until - self.began) if until > self.began else None

    @property
    def left(self) -> int:
        return self.open.total() + self.expected

    def work_left(self) -> Counter[float]:
        """How many open tasks there are of each amount of work."""
        found: Counter[float] = Counter()
        for shape, count in self.open.items():
            found[shape.work] += count
        if self.expected:
            count, work = self.seen
            found[work / count if count else 1.0] += self.expected
        return found


@dataclass
class Worker:
    """One worker.

    Attributes:
        tasks: that it was given and that have no result, in order.
        stepping: the task whose steps were told last, with these.
        loras: that it has used since it loaded its model.
        starting: since when it has been on its way to its model.
    """

    name: str
    device: Device | None = None
    state: str = ""
    kind: str | None = None
    tasks: dict[Key, TaskShape] = field(default_factory=dict)
    stepping: tuple[Key, int, int, int] | None = None
    loras: set[str] = field(default_factory=set)
    starting: float | None = None
    done: int = 0
    failed: int = 0
    memory: int | None = None

    @property
    def is_there(self) -> bool:
        return self.state not in GONE
