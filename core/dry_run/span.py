"""A quantity that is known within bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Span:
    """What is likely, and what it may well be, in any unit."""

    low: float
    likely: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Span":
        return cls(value, value, value)

    @classmethod
    def of(cls, values: Sequence[float]) -> "Span":
        """The median of measured values, between the tenth part that is least and that is most."""
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(ordered[last // 10], median(ordered), ordered[last - last // 10])

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, factor: float) -> "Span":
        return Span(self.low * factor, self.likely * factor, self.high * factor)


NOTHING = Span.exactly(0.0)


def shown_seconds(seconds: float) -> str:
    """A duration as text, such as 0.4 s, 45 s, 12 min or 3 h 20 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest and hours < 10 else f"{hours} h"
