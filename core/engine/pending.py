"""What the scheduler knows of a waiting task, of the worker that asks, and of the other workers."""

import math
from collections.abc import Hashable
from dataclasses import dataclass

Stack = str | frozenset[str] | None
"""What a task loads: content hash of its LoRA, those of several, or None."""
Key = tuple[int, int]
"""Names a task among those of all jobs: the number of its job, its position in it."""


def files_of(lora: Stack) -> frozenset[str]:
    """Content hashes of the files that a LoRA or stack loads."""
    if isinstance(lora, str):
        return frozenset((lora,))
    return lora or frozenset()


@dataclass(frozen=True, slots=True)
class Pending:
    """One task that waits for a lease.

    Attributes:
        job: number of its job.
        position: its place in the job's input.
        work: expected work in any unit, the same for all tasks of a model.
        lora: content hash of its LoRA, those of its stack, or None.
        retry: how often it was tried; retries go behind all fresh tasks of their LoRA.
        avoid: workers that should rather not run it again.
        group: equal for tasks that may run together; None for one that runs alone.
        suspect: it must not run while its worker has anything else.
    """

    job: int
    position: int
    work: float
    lora: Stack = None
    retry: int = 0
    avoid: frozenset[str] = frozenset()
    group: Hashable | None = None
    suspect: bool = False

    @property
    def key(self) -> Key:
        """The task's name among those of all jobs."""
        return (self.job, self.position)

    def __lt__(self, other: "Pending") -> bool:
        """Fresh before retried, long before short, then in the order of jobs and their inputs."""
        if self.retry != other.retry:
            return self.retry < other.retry
        if self.work != other.work:
            return self.work > other.work
        return self.key < other.key

    def loads_nothing_on(self, worker: "Worker") -> bool:
        """The worker holds every LoRA that the task needs."""
        return self.lora is None or files_of(self.lora) <= worker.loras


@dataclass(frozen=True)
class Peer:
    """A worker as the others see it: when it should be free, how fast it is, what it holds then."""

    name: str
    free_in: float  # seconds
    seconds_per_work: float
    loras: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Worker:
    """The asking worker: its name, its LoRAs, and what else is there.

    Attributes:
        others: names of the other workers that take leases of the same model now; its own may be
            among them, so that one set serves all who ask.
        peers: it and the others with their speed; none where speeds are not known yet. Workers
            that ask at one moment bring the same object: the last tasks are dealt out once for all.
        load_seconds: how long a LoRA takes to load.
        has_others: it has something else to draw or to save.
        most_work: of a task that it may be given; where the next one is longer, it gets none.
        model: the model that it has loaded; only this model's tasks are given to it.
    """

    name: str
    loras: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    loras_elsewhere: frozenset[str] = frozenset()
    peers: tuple[Peer, ...] = ()
    load_seconds: float = 0.0
    has_others: bool = False
    most_work: float = math.inf
    model: Hashable = None

    def may_have(self, task: Pending) -> bool:
        """The task may be given to it now."""
        return task.work <= self.most_work and not (task.suspect and self.has_others)
