"""What a daemon says that tasks wait for, such as a drained worker or a full disk: told once."""

from loguru import logger

from core.remote.portion import Portion


class ServerWaits:
    """Knows which portions of tasks wait for something. Used by the engine's thread alone.

    Args:
        name: of the daemon.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reasons: dict[Portion, str] = {}
        self._told: str | None = None

    def told(self, portion: Portion, reason: str | None) -> None:
        """The daemon said how a portion stands: what it waits for, or that it does not."""
        if reason is not None:
            self._reasons[portion] = reason
            if reason != self._told:
                logger.warning(f"The server at {self._name} says: {reason}")
                self._told = reason
        elif self._reasons.pop(portion, None) is not None and not self._reasons:
            logger.info("The server goes on with the tasks.")
            self._told = None

    def over(self, portion: Portion) -> None:
        """A portion has ended, or nobody wants it any more."""
        self._reasons.pop(portion, None)
        if not self._reasons:
            self._told = None
