"""How long tasks take here, learned from those before: the source of every task deadline."""

from collections import deque
from statistics import median

from core.settings import SupervisionSettings

MEMORY = 64  # tasks: enough for a median that one slow task does not move


class Pace:
    """Seconds per unit of expected work, over all workers of a pool."""

    def __init__(self, rules: SupervisionSettings) -> None:
        self._rules = rules
        self._rates: deque[float] = deque(maxlen=MEMORY)

    def learn(self, work: float, seconds: float) -> None:
        """Note a finished task."""
        self._rates.append(seconds / max(work, 1e-9))

    def allowed(self, work: float) -> float:
        """Seconds after which a task of this much work counts as hung."""
        rules = self._rules
        if rules.task_timeout is not None:
            return rules.task_timeout
        if not self._rates:
            return rules.first_task_timeout
        expected = median(self._rates) * work
        return max(rules.task_timeout_minimum, rules.task_timeout_factor * expected)
