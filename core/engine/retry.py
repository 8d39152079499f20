"""What happens to a task after an attempt that ended without a result. Pure.

A failure that another try may not repeat (on another worker, with more free memory, by itself
instead of in company) is tried again a number of times. A task that took workers with it runs
alone the next time, so that it is known to be the cause; if it does it again, it is quarantined.
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

from core.messages import FailureKind

Decision = Literal["again", "alone", "fail", "quarantine"]
Cause = FailureKind | Literal["crash", "sigkill", "hung", "released"]
"""crash: the worker died. sigkill: it was killed, perhaps by the kernel for want of memory. hung:
it passed its deadline. released: the attempt ended through no fault of its task."""

PASSING: frozenset[str] = frozenset({"out_of_memory", "device", "error", "hung"})
"""Causes that another try may not repeat."""


class RetryRules(Protocol):
    """How often a task is tried; see `supervision` in config/default.yaml."""

    @property
    def max_attempts(self) -> int: ...
    @property
    def crashes_before_quarantine(self) -> int: ...
    @property
    def kills_before_quarantine(self) -> int: ...


@dataclass(frozen=True, slots=True)
class History:
    """How the attempts at a task have ended so far.

    Attributes:
        failures: passing failures and passed deadlines.
        crashes: attempts that took their worker with them.
        kills: the same by SIGKILL, which may have had other reasons.
        last: how the newest attempt ended; None for a task that has not been tried.
        last_was_alone: that attempt had its worker to itself because its task was suspected.
    """

    failures: int = 0
    crashes: int = 0
    kills: int = 0
    last: Cause | None = None
    last_was_alone: bool = False

    def plus(self, cause: Cause, alone: bool = False) -> "History":
        """The history with one attempt more."""
        return replace(
            self,
            failures=self.failures + (cause in PASSING),
            crashes=self.crashes + (cause == "crash"),
            kills=self.kills + (cause == "sigkill"),
            last=cause,
            last_was_alone=alone,
        )

    @property
    def troubles(self) -> int:
        """Attempts that ended badly for a reason that may lie in the task."""
        return self.failures + self.crashes + self.kills


FRESH = History()


def is_suspect(history: History, rules: RetryRules) -> bool:
    """The task took so many workers with it that it must run alone."""
    return (
        history.crashes >= rules.crashes_before_quarantine
        or history.kills >= rules.kills_before_quarantine
    )


def after(history: History, rules: RetryRules) -> Decision:
    """What to do with a task whose newest attempt has ended without a result."""
    if history.last in ("crash", "sigkill"):
        if history.last_was_alone:
            return "quarantine"
    elif history.last in PASSING:
        if history.failures >= rules.max_attempts:
            return "fail"
    elif history.last != "released":
        return "fail"
    return "alone" if is_suspect(history, rules) else "again"
