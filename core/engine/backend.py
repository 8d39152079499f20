"""The seam between the engine and whatever runs its workers: processes here, or stand-ins.

The engine knows slots, by name. A backend gives a slot a worker (an incarnation), carries
messages in both directions and says when a worker is gone. Everything that knows of processes,
pipes or signals lies behind it.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from core.devices.device import Device
from core.engine.fetch import Fetch
from core.events import Listener
from core.messages import ToWorker
from core.worker_spec import WorkerSpec


@dataclass(frozen=True)
class Said:
    """A message from a slot's worker."""

    slot: str
    message: Any  # one of `core.messages.ToMain`


@dataclass(frozen=True)
class HungUp:
    """A slot's worker says nothing more, and is still there: its death may be to come.

    Not every death is preceded by this.
    """

    slot: str


@dataclass(frozen=True)
class Died:
    """A slot's worker is gone, and everything that it said came before this.

    The slot is free, as after `forget`.

    Attributes:
        how: in words, for the user: `its process was ended by SIGSEGV`.
        by_sigkill: somebody killed it: the user, the kernel for want of memory, or the engine.
        blameless: it went with something that it depends on, and not for what it was doing.
    """

    slot: str
    how: str
    by_sigkill: bool = False
    blameless: bool = False


@dataclass(frozen=True)
class Joined:
    """Devices of another machine, each by itself, can be used from now on; all of that machine.

    Some of them may have been lost before: they are there again.
    """

    devices: tuple[Device, ...]


@dataclass(frozen=True)
class Leaves:
    """A machine will go: its workers finish what they have, and get nothing more.

    Attributes:
        node: as its devices call it.
        why: in words, for the user.
    """

    node: str
    why: str


@dataclass(frozen=True)
class Lost:
    """A machine is gone with its devices. Its workers' deaths came before this."""

    node: str
    why: str


@dataclass(frozen=True)
class NotUsed:
    """The run does without a machine, or some of its devices.

    Attributes:
        node: its name.
        why: that name and the reason, in words, for the user.
    """

    node: str
    why: str


OfSlot = Said | HungUp | Died
Report = OfSlot | Joined | Leaves | Lost | NotUsed


class WorkerBackend(Protocol):
    """Runs the workers of an engine.

    What is asked of a slot without a worker is answered (with False, or None) and never an error.
    `wake` may be called from any thread and from signal handlers; everything else is called from
    the engine's thread alone, which outlives every worker.
    """

    @property
    def ready(self) -> bool:
        """Whether all workers that were prepared for can be started; `wake` follows a change."""

    def prepare(self, spec: WorkerSpec) -> None:
        """Make ready for workers like this one; returns at once."""

    def fetch(self, spec: WorkerSpec, listener: Listener) -> Fetch | None:
        """Get the model of such workers to where they can load it; None: that needs nothing.

        Args:
            listener: told how far it is, from any thread.
        """

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        """Start a worker, of any spec; the slot has none. It does not wait for what makes ready.

        Raises:
            Exception: it cannot be started now, or the backend is not ready.
        """

    def send(self, slot: str, message: ToWorker) -> bool:
        """Send a message; False if the worker is gone, which `poll` will say."""

    def reads_along(self, slot: str) -> bool:
        """Whether the worker has read all that it was sent: to send more cannot block."""

    def is_gone(self, slot: str) -> bool:
        """Whether the slot has no worker, or a dead one, even if `poll` has not said so."""

    def has_word(self, slot: str) -> bool:
        """Whether the worker said something that `poll` has not reported yet, or hung up.

        Also True while that is not known, as of a worker on another machine; to ask is to find out.
        """

    def progress(self, slot: str) -> object:
        """Changes whenever the worker computes or reads; equal if it did neither meanwhile."""

    def kill(self, slot: str) -> None:
        """Have the worker end at once, whatever it is doing; `poll` will say when it is gone."""

    def forget(self, slot: str) -> None:
        """Let go of a worker that cannot be killed: nothing is reported of it any more."""

    def poll(self, timeout: float) -> list[Report]:
        """Wait until a worker says something or dies, `wake` is called, or time is up (seconds).

        Reports of a slot come in the order of what happened there. One call returns what was
        there when it looked, and of a talkative worker not all at once.
        """

    def wake(self) -> None:
        """End a `poll`, or the next one."""

    def close(self) -> None:
        """Kill what still runs and let go of everything; the last call."""
