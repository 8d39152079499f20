"""What a daemon says that tasks wait for, such as a drained worker or a full disk: told once."""

from loguru import logger

from core.events import Listener, TasksWait
from core.remote.portion import Portion


class ServerWaits:
    """Knows which portions of tasks wait for something. Used by the engine's thread alone.

    Args:
        name: of the daemon.
        listener: told of what tasks wait for.
    """

    def __init__(self, name: str, listener: Listener) -> None:
        self._name = name
        self._listener = listener
        self._reasons: dict[Portion, str] = {}
        self._told: str | None = None

    def told(self, portion: Portion, reason: str | None) -> None:
        """The daemon said how a portion stands: what it waits for, or that it does not."""
        if reason is None:
            if self._forget(portion):
                logger.info("The server goes on with the tasks.")
            return
        self._reasons[portion] = reason
        if reason != self._told:
            logger.warning(f"The server at {self._name} says: {reason}")
            self._tell(reason)

    def over(self, portion: Portion) -> None:
        """A portion has ended, or nobody wants it any more."""
        self._forget(portion)

    def _forget(self, portion: Portion) -> bool:
        """A portion waits no longer; says whether it was the last one that did."""
        was_there = self._reasons.pop(portion, None) is not None
        if self._reasons or self._told is None:
            return False
        self._tell(None)
        return was_there

    def _tell(self, reason: str | None) -> None:
        self._told = reason
        self._listener(TasksWait(self._name, reason))
