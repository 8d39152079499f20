"""What the engine needs of a hub's model on its way to the workers, whoever brings it."""

from collections.abc import Callable
from typing import Protocol


class Fetch(Protocol):
    """One model that is being fetched.

    Attributes:
        on_change: called, from any thread, when there is something new to read here.
    """

    on_change: Callable[[], None]

    @property
    def folder(self) -> str | None:
        """Where the model's files lie, as workers have to be told; None until they are there."""

    @property
    def refusal(self) -> str | None:
        """Why the model cannot be had; None if nothing is known against it."""

    @property
    def transfers(self) -> bool:
        """Bytes are coming, which may take long."""

    def start(self, after: "Fetch | None" = None) -> None:
        """Begin; does nothing the second time.

        Args:
            after: another model that has the whole line until it is there.
        """

    def wait(self, seconds: float) -> bool:
        """Wait until the model is there or cannot be had; False if time was up before."""

    def stop(self) -> None:
        """End it, wherever it is; what came stays for the next run."""
