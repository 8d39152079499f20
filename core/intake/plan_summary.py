"""What a run is about to do, in one line: new, changed and by what, unchanged."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.errors import one_line
from core.intake.differences import Change

Standing = Literal[
    "new", "changed", "altered", "missing", "failed", "again", "quarantined", "refused", "unchanged"
]
"""How an input stands to what earlier runs left: `changed`, a result of other settings is there;
`altered`, a file is there that is no longer the result; `missing`, it was done and its file is
gone; `again`, it is done and asked for once more; `refused`, it cannot run."""

MOST_REASONS = 4
MOST_LETTERS = 40  # of a value
MOVED = "moved"  # the reason of a task that stands at another place in its input

_WORDS: dict[Standing, str] = {
    "new": "new",
    "changed": "changed",
    "altered": "damaged or altered since",
    "missing": "missing",
    "failed": "failed before",
    "again": "done again (--overwrite)",
    "quarantined": "quarantined",
    "refused": "unusable",
    "unchanged": "unchanged",
}


@dataclass(frozen=True)
class PlanSummary:
    """Counts of one batch, and the reasons of what changed."""

    counts: Counter[Standing]
    reasons: Sequence[Change]  # of all that changed, one by one
    unchecked: int = 0  # inputs that are looked at during the run
    all_new: bool = True  # these are counted as usable, and as new

    @classmethod
    def of(cls, standings: Iterable[tuple[Standing, Sequence[Change]]]) -> "PlanSummary":
        """Sum up how each input stands and what it changed by."""
        counts: Counter[Standing] = Counter()
        reasons: list[Change] = []
        for standing, changes in standings:
            counts[standing] += 1
            reasons += changes
        return cls(counts, reasons)

    def with_unchecked(self, count: int, all_new: bool = True) -> "PlanSummary":
        """The summary with so many inputs more.

        Args:
            all_new: they are known to be new, be they usable or not.
        """
        counts = self.counts.copy()
        if all_new:
            counts["new"] += count
        return replace(self, counts=counts, unchecked=count, all_new=all_new)

    @property
    def moved(self) -> bool:
        """Whether some inputs have changed only because they stand at another place."""
        return any(change.what.endswith(MOVED) for change in self.reasons)

    def line(self, noun: str, title: str = "Plan") -> str:
        """One line, such as `Plan: 2 new, 8 changed (steps 8 -> 4), 51 unchanged.`

        Args:
            noun: what the inputs are, in the plural.
        """
        parts = []
        for standing, word in _WORDS.items():
            count = self.counts[standing]
            if count:
                why = f" ({self._why(noun)})" if standing == "changed" else ""
                parts.append(f"{count} {word}{why}")
        kept = self.counts["changed"] + self.counts["altered"]
        end = " What is replaced is kept in .replaced." if kept else ""
        if self.unchecked and not self.all_new:
            end += f" {self.unchecked} more are compared with what is there during the run."
        elif self.unchecked:
            end += f" {self.unchecked} of them are checked while the first are drawn."
        return one_line(f"{title}: {', '.join(parts) or 'nothing'}.{end}")

    def _why(self, noun: str) -> str:
        """The reasons, the most frequent first."""
        counts = Counter(change.what for change in self.reasons)
        shown = [self._reason(what, n, noun) for what, n in counts.most_common(MOST_REASONS)]
        more = len(counts) - len(shown)
        if more:
            shown.append(f"{more} other reason{'s' * (more > 1)}")
        return ", ".join(shown)

    def _reason(self, what: str, count: int, noun: str) -> str:
        if what.endswith(MOVED):
            which = noun if count > 1 else noun.removesuffix("s")
            return f"{what.removesuffix(MOVED).strip()}: {count} {which} {MOVED}"
        values = {change.values for change in self.reasons if change.what == what}
        everywhere = count == self.counts["changed"]
        if len(values) == 1 and (pair := values.pop()) is not None:
            text = f"{what} {_clipped(pair[0])} -> {_clipped(pair[1])}"
            return text if everywhere else f"{text}: {count}"
        return f"{what}: {count}"


def _clipped(value: str) -> str:
    return value if len(value) <= MOST_LETTERS else f"{value[: MOST_LETTERS - 1]}…"
