"""How long a lost worker waits for its next start, and when its slot is given up. Pure."""

from dataclasses import dataclass
from typing import Protocol

LAST_WORKER_PATIENCE = 3  # times as many restarts before the last worker is given up
FORGIVEN_PER_TASK = 0.5  # deaths: two finished tasks cancel one


class RestartRules(Protocol):
    """How often a worker is started again; see `supervision` in config/default.yaml."""

    @property
    def restart_backoff(self) -> float: ...
    @property
    def restart_backoff_maximum(self) -> float: ...
    @property
    def restarts_before_retirement(self) -> int: ...


@dataclass
class Deaths:
    """How the workers of one slot and one model have fared.

    Attributes:
        in_row: workers lost since the last finished task.
        strikes: workers lost, less those that finished tasks have cancelled.
    """

    in_row: int = 0
    strikes: float = 0.0

    def after_task(self) -> None:
        """A task was finished: two of them cancel one death."""
        self.in_row = 0
        self.strikes = max(0.0, self.strikes - FORGIVEN_PER_TASK)

    def after_death(self, rules: RestartRules, is_last: bool) -> float | None:
        """Seconds until the next start; None to give the slot up.

        A worker that crashes after every task is given up, unless it is the last.

        Args:
            is_last: no other slot is left: it is kept as long as it gets anything done.
        """
        limit = rules.restarts_before_retirement
        self.in_row += 1
        self.strikes = min(self.strikes + 1, limit + 1)
        if is_last and self.in_row > limit * LAST_WORKER_PATIENCE:
            return None
        if not is_last and self.strikes > limit:
            return None
        doublings = max(self.in_row, self.strikes) - 2  # the first is immediate
        if doublings < 0:
            return 0.0
        wait: float = rules.restart_backoff * 2.0 ** min(doublings, 30)
        return min(wait, rules.restart_backoff_maximum)
