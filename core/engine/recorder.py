"""What the engine asks of an output folder: leases and results made durable, in order.

A recorder works in a thread of its own, so that no disk delays a device. It records leases first,
does everything else in the order in which it is asked, and calls each `then` from that thread.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from core.messages import Done
from core.store.attempt import Attempt, Ending, Outcome, Refusal
from core.store.ledger_entry import Recordable
from core.tasks import Result, Status

__all__ = ["Attempt", "Ending", "Outcome", "Recorder", "Refusal", "Then"]

Then = Callable[[Refusal | None], None]
"""Told when it is done (None), or why the disk refused. It must not block and must not raise."""


class Recorder(Protocol):
    """The record of one output folder. Called from the engine's thread; never blocks it."""

    @property
    def folder(self) -> Path:
        """The output folder: what it refuses for good, it refuses all of its jobs."""

    @property
    def batch(self) -> int:
        """The number of the job's batch in the folder's record."""

    def partial_path(self, admitted: Recordable, lease_id: str) -> str:
        """The file to which the attempt of a lease writes; made without a look at the disk."""

    def begin(self, attempt: Attempt, then: Then) -> None:
        """Record a lease and make its folder; it may be sent to the worker afterwards."""

    def keep(self, attempt: Attempt, done: Done, then: Then) -> None:
        """Give a finished result its name, and record it; a refused one is removed."""

    def end(self, attempt: Attempt, ending: Ending, then: Then) -> None:
        """Remove what an attempt left, close its lease and record what became of its task."""

    def end_lease_alone(self, attempt: Attempt, cause: str) -> None:
        """Remove what an attempt left, and close its lease; another one decides about its task."""

    def fail(self, attempt: Attempt, error: str) -> None:
        """Record that a task failed because the disk refused; itself refused, it is let be."""

    def discard(self, attempt: Attempt) -> None:
        """Remove what an attempt left, and keep its lease open: the next run tries its task."""

    def note(self, result: Result) -> None:
        """Have the tables say a result of a job that keeps none, if they do not say it already."""

    def finish(self, results: Sequence[Result], ended: Mapping[Status, int], then: Then) -> None:
        """Write what tells of the whole job, after everything else that was asked for.

        Args:
            results: of all its tasks, in input order, if the job keeps them.
            ended: how many tasks ended in which way.
        """
