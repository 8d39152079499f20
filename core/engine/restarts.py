"""How long a lost worker waits for its next start, and when it is given up."""

from core.engine.worker_handle import WorkerHandle
from core.settings import SupervisionSettings

LAST_WORKER_PATIENCE = 3  # times as many restarts before the last worker is given up
FORGIVEN_PER_TASK = 0.5  # deaths: who gets fewer than two tasks done per death is flapping


class Restarts:
    """Deaths count until tasks that were done make up for them."""

    def __init__(self, rules: SupervisionSettings) -> None:
        self._rules = rules

    def after_task(self, handle: WorkerHandle) -> None:
        """It got something done."""
        handle.deaths_in_row = 0
        handle.strikes = max(0.0, handle.strikes - FORGIVEN_PER_TASK)

    def after_death(self, handle: WorkerHandle, is_last: bool) -> float | None:
        """Seconds until its next start; None to give it up.

        Args:
            is_last: no other worker is left: it is kept as long as it gets anything done.
        """
        limit = self._rules.restarts_before_retirement
        handle.deaths_in_row += 1
        handle.strikes = min(handle.strikes + 1, limit + 1)
        if is_last and handle.deaths_in_row > limit * LAST_WORKER_PATIENCE:
            return None
        if not is_last and handle.strikes > limit:
            return None
        doublings = max(handle.deaths_in_row, handle.strikes) - 2  # the first is immediate
        if doublings < 0:
            return 0.0
        wait: float = self._rules.restart_backoff * 2.0 ** min(doublings, 30)
        return min(wait, self._rules.restart_backoff_maximum)
