"""What an engine needs of whatever brings a hub's model to this machine."""

from collections.abc import Callable
from typing import Protocol


class Fetch(Protocol):
    """A model on its way here, brought once for all workers."""

    on_change: Callable[[], None]
    """Called, from any thread, when any of the properties has changed."""

    @property
    def folder(self) -> str | None:
        """Where the model's files lie, once all of them are there."""

    @property
    def refusal(self) -> str | None:
        """Why the model cannot be had; another try would not change it."""

    @property
    def transfers(self) -> bool:
        """Files are being transferred, which may take long."""

    def stop(self) -> None:
        """End it; what has come is kept for the next time."""
