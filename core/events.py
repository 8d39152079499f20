"""What a run tells whoever watches it: small frozen dataclasses, handed to a callback."""

from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from core.tasks import Result


@dataclass(frozen=True)
class TaskStarted:
    """`job` is the number of the job that the task belongs to.

    `steps` is how many it takes, as its task says; 0 where that is the model's affair, and for
    tasks without steps.
    """

    task_id: str
    worker: str
    job: int = 0
    steps: int = 0


@dataclass(frozen=True)
class TaskProgress:
    """Steps of what a worker runs; it comes twice a second at most, and not for short tasks.

    `together` counts the tasks that it runs as one.
    """

    task_id: str
    worker: str
    done: int
    total: int
    together: int = 1
    job: int = 0


@dataclass(frozen=True)
class TaskPreview:
    """A small picture of what a running task has come to, for those who asked for `previews`.

    `path` is a JPEG file of some 10 KB, at most 384 pixels wide and high, that shows what the
    finished picture will be as far as can be told after `step` of `total` steps. It is there for
    as long as the listener is called: read it in that call, or link or copy the file. When the
    attempt ends, it is removed. The last step has none: its picture is the task's result.

    A preview that cannot be made, written or read is left out; the task goes on without it. After
    a worker's death the next attempt begins again with the first.
    """

    task_id: str
    worker: str
    step: int
    total: int
    path: str
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
class TasksWait:
    """Every worker that could take a model's waiting tasks is drained, or that is over.

    `reason` is a sentence for the user; None: one takes them again, or none wait any more.
    """

    model: str
    reason: str | None


@dataclass(frozen=True)
class ModelFetching:
    """Bytes of a hub's model that are on this machine, of those that workers need to load it."""

    model: str
    done: int
    total: int


Event = (
    TaskStarted
    | TaskProgress
    | TaskPreview
    | TaskEnded
    | TaskSpared
    | WorkerState
    | TasksWait
    | ModelFetching
)
Listener = Callable[[Event], None]


def tell(listener: Listener, event: Event) -> None:
    """Call a listener; one that raises must not take the engine with it."""
    try:
        listener(event)
    except Exception:
        logger.exception("The listener failed; the run goes on.")


def told_both(first: Listener, second: Listener) -> Listener:
    """A listener that tells two; the second one, too, where the first one raises."""

    def told(event: Event) -> None:
        tell(first, event)
        tell(second, event)

    return told


def ignore(event: Event) -> None:
    """The listener of those who do not watch."""
