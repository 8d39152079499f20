"""How a run ended, for its last lines: time and speed, what failed and why, and what to do now."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import one_line
from core.intake.planning import FAILED_BEFORE
from core.status.run_status import NOUNS, RunStatus
from core.status.words import duration, rate
from core.tasks import Result

NOBODY_LEFT = "No worker is left"  # the log has said why, once for all
NOT_TRIED = "failed in an earlier run, not tried again"
MOST_REASONS = 5
MOST_NAMES = 3
MOST_LETTERS = 300  # of a reason

ADVICE: Mapping[str, str] = {
    "input": "Correct these entries; the same command then does them alone.",
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


@dataclass(frozen=True)
class Reason:
    """Results that failed for one reason.

    Attributes:
        error: of the first of them.
        names: of the tasks.
    """

    status: str
    cause: str | None
    error: str
    names: Sequence[str]

    @property
    def advice(self) -> str | None:
        """What to do about it."""
        if self.status == "quarantined":
            return QUARANTINED
        return ADVICE.get(self.cause or "")


def reasons(results: Sequence[Result]) -> list[Reason]:
    """Why results failed, the most frequent reason first; errors that differ in numbers and quoted
    values alone are one."""
    found: dict[tuple[str, str | None, str], list[Result]] = {}
    for result in results:
        if result.status in ("failed", "quarantined") or FAILED_BEFORE in (result.error or ""):
            error = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d+", "…", result.error or "")
            found.setdefault((result.status, result.cause, error), []).append(result)
    grouped = sorted(found.values(), key=len, reverse=True)
    return [_reason(same) for same in grouped]


def _reason(same: Sequence[Result]) -> Reason:
    first = same[0]
    error, status = first.error or "", str(first.status)
    if error.startswith(NOBODY_LEFT):
        error = f"{NOBODY_LEFT}; the log says why."
    if FAILED_BEFORE in error:
        error, status = error.partition(FAILED_BEFORE)[2].strip(), NOT_TRIED
    return Reason(status, first.cause, error, [result.task_id for result in same])


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


def failure_lines(results: Sequence[Result], again: str, table: str) -> list[str]:
    """What failed by its reasons, what to do about each, and the command that goes on.

    Args:
        again: that command.
        table: the file that has all reasons.
    """
    lines: list[str] = []
    found = reasons(results)
    for reason in found[:MOST_REASONS]:
        names = ", ".join(reason.names[:MOST_NAMES])
        more = len(reason.names) - MOST_NAMES
        names += f" and {more} more" if more > 0 else ""
        error = reason.error
        error = error if len(error) <= MOST_LETTERS else f"{error[: MOST_LETTERS - 1]}…"
        lines.append(f"{len(reason.names)} {reason.status}: {error}")
        lines.append(f"  {names}")
        lines += [f"  {reason.advice}"] if reason.advice else []
    if len(found) > MOST_REASONS:
        lines.append(f"{len(found) - MOST_REASONS} other reasons are in {table}.")
    if any(not result.success for result in results):
        lines.append(f"try again with: {again}")
    return [one_line(line) for line in lines]


def _noun(kind: str, count: int) -> str:
    noun = NOUNS.get(kind, kind)
    return noun.removesuffix("s") if count == 1 else noun
