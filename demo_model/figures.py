"""What the model card says in numbers, and when a new number is worse than an old one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Literal

Better = Literal["more", "less", "near", "below"]


@dataclass(frozen=True)
class Figure:
    """One number of the model card, rounded as the card shows it.

    Attributes:
        better: more; less; near `ideal`; or anything up to `ideal`, which is a limit.
        slack: by how much it may fall behind, where the card's own samples say no more.
        may_lack: another model may have none, such as no failures to be judged.
    """

    name: str
    value: float
    better: Better
    ideal: float = 0.0
    slack: float = 0.0
    may_lack: bool = False

    def worse_than(self, other: "Figure") -> bool:
        """Whether this is worse than the same figure of another model; no number at all is."""
        if self.better == "below":
            return not self.value <= self.ideal
        behind = {
            "more": other.value - self.value,
            "less": self.value - other.value,
            "near": abs(self.value - self.ideal) - abs(other.value - self.ideal),
        }[self.better]
        return not behind <= self.slack + 1e-9


@dataclass(frozen=True)
class Measured:
    """The card's tables for some models, and the figures in them."""

    table: str
    figures: tuple[Figure, ...]

    def save(self, file: Path) -> None:
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), indent=1), "utf-8")
        draft.replace(file)

    @staticmethod
    def load(file: Path) -> "Measured":
        kept = json.loads(file.read_text("utf-8"))
        return Measured(kept["table"], tuple(Figure(**figure) for figure in kept["figures"]))


def worse_figures(shipped: Sequence[Figure], new: Sequence[Figure]) -> list[str]:
    """A line for every figure that is worse in `new`; what only `new` has is held to its limit."""
    now = {figure.name: figure for figure in new}
    before = {figure.name: figure for figure in shipped}
    lines = []
    for name, old in before.items():
        figure = now.get(name)
        if figure is None and not old.may_lack:
            lines.append(f"{name}: {old.value:g}, and not measured of the new models")
        elif figure is not None and figure.better != "below" and figure.worse_than(old):
            lines.append(f"{name}: {figure.value:g} instead of {old.value:g}")
    limits = [figure for figure in new if figure.better == "below" and figure.worse_than(figure)]
    return [*lines, *(f"{f.name}: {f.value:g}, and {f.ideal:g} is the limit" for f in limits)]


def write_card(card: Path, tables: Mapping[tuple[str, str], str]) -> None:
    """Put each table between its two marks of the model card."""
    text = card.read_text("utf-8")
    for (start, end), table in tables.items():
        before, rest = text.split(start)
        text = f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"
    draft = card.with_suffix(".draft")
    draft.write_text(text, "utf-8")
    draft.replace(card)


def error_of_area(area: float, right: int, wrong: int) -> float:
    """Standard error of an area under a ROC curve (Hanley and McNeil, 1982)."""
    both_above = area / (2 - area)
    both_below = 2 * area * area / (1 + area)
    spread = area * (1 - area)
    spread += (right - 1) * (both_above - area * area) + (wrong - 1) * (both_below - area * area)
    return sqrt(max(0.0, spread) / (right * wrong))
