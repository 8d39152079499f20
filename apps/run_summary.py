"""How a run ended, for its last lines: time and speed, what failed and why, and what to do now."""

import re
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from core.errors import one_line
from core.intake.planning import FAILED_BEFORE
from core.status.run_status import NOUNS, RunStatus
from core.status.words import duration, rate
from core.tasks import FAILURES, SUCCESSES, Result, Status

NOBODY_LEFT = "No worker is left"  # the log has said why, once for all
NOT_TRIED = "failed in an earlier run, not tried again"
MOST_REASONS = 5
MOST_KEPT = 1000  # reasons that are told apart
MOST_NAMES = 3
MOST_LETTERS = 300  # of a reason

ADVICE: Mapping[str, str] = {
    "input": "Correct what is named; the same command then does these alone.",
    "lora": "Give a LoRA that is there and was made for this model; the same command then tries "
    "these alone.",
    "model": "See that the model can be had and fits into memory, or name another one (--model).",
    "exception": "Another try would end in the same way: change these entries or the settings.",
    "out_of_memory": "Ask for smaller pictures, or for a memory mode that takes less (`memory` in "
    "the settings).",
    "device": "The GPU gave up: look at nvidia-smi and the system's log before you try again.",
    "storage": "Make room, or choose another disk with --output-dir.",
    "hung": "They took far longer than others: look at the machine, or allow more time "
    "(`supervision.task_timeout` in the settings).",
    "sigkill": "Their workers were killed, mostly for want of host memory: use fewer workers, or "
    "free some.",
    "crash": "Their workers died while they drew these: the log says how.",
}
QUARANTINED = (
    "They crashed their workers again and again; --retry-quarantined tries them once more."
)


@dataclass
class Reason:
    """Why some results failed.

    Attributes:
        count: of all of them.
        first: those that come first in the input, with their place, name and error.
        differ: their errors are of one kind, and not the same words.
    """

    status: str
    cause: str | None
    count: int = 0
    first: list[tuple[int, str, str]] = field(default_factory=list)
    differ: bool = False

    @property
    def error(self) -> str:
        """Of the first of them."""
        return self.first[0][2]

    @property
    def names(self) -> list[str]:
        """Of the first tasks."""
        return [name for _, name, _ in self.first]

    @property
    def advice(self) -> str | None:
        """What to do about it."""
        if self.status == "quarantined":
            return QUARANTINED
        return ADVICE.get(self.cause or "")

    def add(self, position: int, name: str, error: str) -> None:
        """Count one more."""
        self.count += 1
        self.differ = self.differ or bool(self.first and error != self.error)
        insort(self.first, (position, name, error))
        del self.first[MOST_NAMES:]


class Tally:
    """Counts results as they come, and keeps none of them."""

    def __init__(self) -> None:
        self.counts: Counter[Status] = Counter()
        self._reasons: dict[tuple[str, str | None, str], Reason] = {}

    @classmethod
    def of(cls, results: Iterable[Result]) -> "Tally":
        """The tally of results that are there."""
        tally = cls()
        for result in results:
            tally.add(result)
        return tally

    def add(self, result: Result) -> None:
        """Count a result."""
        self.counts[result.status] += 1
        if result.status in FAILURES or FAILED_BEFORE in (result.error or ""):
            error = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d+", "…", result.error or "")
            key = (result.status, result.cause, error)
            if key not in self._reasons and len(self._reasons) >= MOST_KEPT:
                key = (result.status, None, "")
            status, said = _told(result)
            reason = self._reasons.setdefault(key, Reason(status, result.cause))
            reason.add(result.position, result.task_id, said)

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def all_succeeded(self) -> bool:
        return all(status in SUCCESSES for status, count in self.counts.items() if count)

    @property
    def reasons(self) -> list[Reason]:
        """Why results failed, the most frequent reason first; errors that differ in numbers and
        quoted values alone are one."""
        return sorted(self._reasons.values(), key=lambda reason: (-reason.count, reason.first))


def _told(result: Result) -> tuple[str, str]:
    """How and why a result failed, in words for the user."""
    error, status = result.error or "", str(result.status)
    if error.startswith(NOBODY_LEFT):
        error = f"{NOBODY_LEFT}; the log says why."
    if FAILED_BEFORE in error:
        error, status = error.partition(FAILED_BEFORE)[2].strip(), NOT_TRIED
    return status, error


def time_line(status: RunStatus) -> str | None:
    """How long a run took and how fast it was; None where nothing ran."""
    done = {kind.kind: kind.done for kind in status.kinds if kind.done}
    if status.ended is None or not (done or status.failed or status.not_tried):
        return None
    seconds = status.ended - status.started
    made = " and ".join(f"{count} {_noun(kind, count)}" for kind, count in done.items())
    line = f"elapsed: {duration(seconds)}"
    if done and seconds > 0:
        line += f" for {made}, {rate(60 * sum(done.values()) / seconds)}"
    return line


def end_lines(status: RunStatus) -> list[str]:
    """How long a run took, and what of a cluster it did without, and why."""
    elapsed = time_line(status)
    return [*filter(None, [elapsed]), *(one_line(f"not used: {why}") for why in status.not_used)]


def failure_lines(tally: Tally, again: str, table: str) -> list[str]:
    """What failed by its reasons, what to do about each, and the command that goes on.

    Args:
        again: that command.
        table: the file that has all reasons.
    """
    lines: list[str] = []
    found = tally.reasons
    for reason in found[:MOST_REASONS]:
        names = ", ".join(reason.names)
        more = reason.count - MOST_NAMES
        names += f" and {more} more" if more > 0 else ""
        error = reason.error
        error = error if len(error) <= MOST_LETTERS else f"{error[: MOST_LETTERS - 1]}…"
        like = " like this" if reason.differ else ""
        lines.append(f"{reason.count} {reason.status}{like}: {error}")
        lines.append(f"  {names}")
        lines += [f"  {reason.advice}"] if reason.advice else []
    if len(found) > MOST_REASONS:
        lines.append(f"{len(found) - MOST_REASONS} other reasons are in {table}.")
    if not tally.all_succeeded:
        lines.append(f"{'try again' if found else 'continue'} with: {again}")
    return [one_line(line) for line in lines]


def _noun(kind: str, count: int) -> str:
    noun = NOUNS.get(kind, kind)
    return noun.removesuffix("s") if count == 1 else noun
