"""What a run tells whoever watches it: small frozen dataclasses, handed to a callback."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from loguru import logger

from core.lora_paths import name_of
from core.lora_stack import CheckedLora
from core.tasks import Result


@dataclass(frozen=True)
class TaskShape:
    """What of a task decides how long it takes.

    Attributes:
        kind: generate, edit or score.
        work: expected work, in a unit of the kind.
        loras: names of the LoRAs that it uses.
    """

    kind: str = "generate"
    work: float = 1.0
    loras: tuple[str, ...] = ()


UNKNOWN_SHAPE = TaskShape()


class Shaped(Protocol):
    """A task that can run: see `core.intake.admission.Admitted`."""

    @property
    def role(self) -> str: ...
    @property
    def work(self) -> float: ...
    @property
    def loras(self) -> Sequence[CheckedLora]: ...


def shape_of(task: Shaped) -> TaskShape:
    """The shape of a task that can run."""
    return TaskShape(task.role, task.work, tuple(name_of(x.path) for x in task.loras))


@dataclass(frozen=True)
class TaskStarted:
    """A worker was given a task; it begins with it when it has done what it was given before.

    `job` is the number of the job that the task belongs to.

    `steps` is how many it takes, as its task says; 0 where that is the model's affair, and for
    tasks without steps.
    """

    task_id: str
    worker: str
    job: int = 0
    steps: int = 0
    shape: TaskShape = UNKNOWN_SHAPE


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
    shape: TaskShape = UNKNOWN_SHAPE


@dataclass(frozen=True)
class TaskSpared:
    """One task fewer than announced: what it would have worked on was not made."""


@dataclass(frozen=True)
class WorkerState:
    """`state` is a few words for the user, such as `loading the model` or `ready`.

    `kind` is that of the tasks which the worker's model is for; None where that is not known.
    """

    worker: str
    state: str
    kind: str | None = None


@dataclass(frozen=True)
class TasksWait:
    """Waiting tasks cannot go on, as where every worker of their model is drained; or they can.

    Attributes:
        model: what they wait for: a model here, or the daemon that was given them.
        reason: a sentence for the user; None where they go on, or none wait any more.
    """

    model: str
    reason: str | None


@dataclass(frozen=True)
class ModelFetching:
    """Bytes of a hub's model that are on this machine, of those that workers need to load it."""

    model: str
    done: int
    total: int


@dataclass(frozen=True)
class DevicesNotUsed:
    """A machine of a cluster, or some of its devices, that the run does without.

    Attributes:
        node: its name.
        why: that name and the reason, in words for the user; None where it has joined the run.
    """

    node: str
    why: str | None


Event = (
    TaskStarted
    | TaskProgress
    | TaskPreview
    | TaskEnded
    | TaskSpared
    | WorkerState
    | TasksWait
    | ModelFetching
    | DevicesNotUsed
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
