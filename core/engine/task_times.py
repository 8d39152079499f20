"""How long tasks of a model take here, learned from those before: deadlines and forecasts."""

import math
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Protocol

SAME_SPEED = 1.15  # how much slower a worker may be before it counts as slower
MEMORY = 64  # tasks: enough for a median that one slow task does not move
OWN_MEMORY = 9  # of one worker: its first, slow task is soon outvoted
OWN_ENOUGH = 3  # of its tasks: before, one slow one would speak for all


class DeadlineRules(Protocol):
    """How long a task may take; see `supervision` in config/default.yaml."""

    @property
    def task_timeout(self) -> float | None: ...
    @property
    def task_timeout_factor(self) -> float: ...
    @property
    def task_timeout_minimum(self) -> float: ...
    @property
    def first_task_timeout(self) -> float: ...


class TaskTimes:
    """Seconds per unit of expected work, over all workers of a model and for each of them."""

    def __init__(self, rules: DeadlineRules) -> None:
        self._rules = rules
        self._rates: deque[float] = deque(maxlen=MEMORY)
        self._usual: float | None = None  # their median
        self._seconds: deque[float] = deque(maxlen=MEMORY)  # of whole tasks
        self._own: dict[str, deque[float]] = {}
        self._own_median: dict[str, float] = {}  # of those that have finished enough
        self._loads: deque[float] = deque(maxlen=MEMORY)  # seconds for a LoRA

    def learn(
        self, worker: str, work: float, seconds: float, loads: int = 0, together: int = 1
    ) -> None:
        """Note a finished task.

        Args:
            seconds: its share of the device's time.
            loads: LoRAs that were loaded for it and those that ran with it.
            together: how many that were.
        """
        usual = self.seconds_per_work(worker)
        if loads and usual is not None:
            self._loads.append(max(0.0, seconds - usual * work) * together / loads)
        rate = seconds / max(work, 1e-9)
        self._rates.append(rate)
        self._usual = median(self._rates)
        self._seconds.append(seconds)
        own = self._own.setdefault(worker, deque(maxlen=OWN_MEMORY))
        own.append(rate)
        if len(own) >= OWN_ENOUGH:
            self._own_median[worker] = median(own)

    def learn_lora(self, seconds: float) -> None:
        """Note how long a LoRA took to load, where no task waited for it."""
        self._loads.append(seconds)

    def seconds_per_work(self, worker: str = "") -> float | None:
        """Seconds per unit of work on a worker, or on all while it has finished few; else None."""
        if worker in self._own_median:
            return self._own_median[worker]
        return self._usual

    def own_seconds_per_work(self, worker: str) -> float | None:
        """Seconds per unit of work on a worker; None while it has finished few tasks."""
        return self._own_median.get(worker)

    @property
    def seconds_per_task(self) -> float | None:
        """Device time of a usual task; None while none has finished."""
        return median(self._seconds) if self._seconds else None

    @property
    def load_seconds(self) -> float:
        """Seconds that a LoRA adds to the task that loads it; 0 while nobody knows."""
        return median(self._loads) if self._loads else 0.0

    def fastest(self, workers: Iterable[str]) -> float:
        """Seconds per unit of work on the fastest of some workers; infinite while none is known."""
        known = self._own_median
        return min((known[name] for name in workers if name in known), default=math.inf)

    def keeps_up(self, worker: str, fastest: float) -> bool:
        """The worker is known to be about as fast as the fastest one.

        Args:
            fastest: seconds per unit of work on that one.
        """
        own = self.own_seconds_per_work(worker)
        return own is not None and own <= SAME_SPEED * fastest

    def allowed(self, worker: str, work: float, may_compile: bool = False) -> float:
        """Seconds after which a task of this much work counts as hung on this worker.

        Args:
            may_compile: so it takes as long as a first task, whatever is known of others.
        """
        rules = self._rules
        if rules.task_timeout is not None:
            return rules.task_timeout
        own = self.seconds_per_work(worker)
        if own is None:
            return rules.first_task_timeout
        expected = max(own, self._usual or own) * work
        learned = max(rules.task_timeout_minimum, rules.task_timeout_factor * expected)
        return max(learned, rules.first_task_timeout) if may_compile else learned

    def allowed_for_lora(self) -> float:
        """Seconds after which the load of a LoRA, without a task, counts as hung."""
        rules = self._rules
        if rules.task_timeout is not None:
            return rules.task_timeout
        if not self._loads:
            return rules.first_task_timeout
        return max(rules.task_timeout_minimum, rules.task_timeout_factor * self.load_seconds)
