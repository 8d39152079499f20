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
        """The folder of the model's files, as workers are told; None until they are there."""

    @property
    def refusal(self) -> str | None:
        """Why the model cannot be had; None if nothing is known against it."""

    @property
    def transfers(self) -> bool:
        """Whether bytes of the model are coming, which may take long."""

    def start(self, after: "Fetch | None" = None) -> None:
        """Begin to fetch; does nothing the second time.

        Args:
            after: another model that has the whole line until it is there.
        """

    def wait(self, seconds: float) -> bool:
        """Wait until the model is there or cannot be had; False if time was up before."""

    def stop(self) -> None:
        """End it, wherever it is; what came stays for the next run."""
