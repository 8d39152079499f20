"""What a run tells whoever watches it: small frozen dataclasses, handed to a callback."""

from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from core.tasks import Result


@dataclass(frozen=True)
class TaskStarted:
    """`job` is the number of the job that the task belongs to."""

    task_id: str
    worker: str
    job: int = 0


@dataclass(frozen=True)
class TaskProgress:
    """Steps of what a worker runs; it comes four times a second at most, and not for short tasks.

    `together` counts the tasks that it runs as one.
    """

    task_id: str
    worker: str
    done: int
    total: int
    together: int = 1
    job: int = 0


@dataclass(frozen=True)
class TaskEnded:
    """`refused`: its input turned out to be unusable while the run was going on."""

    result: Result
    job: int = 0
    refused: bool = False


@dataclass(frozen=True)
class TaskSpared:
    """One task fewer than announced: what it would have worked on was not made."""


@dataclass(frozen=True)
class WorkerState:
    """`state` is a few words for the user, such as `loading` or `ready`."""

    worker: str
    state: str


@dataclass(frozen=True)
class ModelFetching:
    """Bytes of a hub's model that are on this machine, of those that workers need to load it."""

    model: str
    done: int
    total: int


Event = TaskStarted | TaskProgress | TaskEnded | TaskSpared | WorkerState | ModelFetching
Listener = Callable[[Event], None]


def tell(listener: Listener, event: Event) -> None:
    """Call a listener; one that raises must not take the engine with it."""
    try:
        listener(event)
    except Exception:
        logger.exception("The listener failed; the run goes on.")


def ignore(event: Event) -> None:
    """The listener of those who do not watch."""
