"""Ways of making one score of several, as editing benchmarks publish them; pure arithmetic."""

import math
from collections.abc import Mapping
from typing import Literal

Combine = Literal["least", "mean", "geometric_mean", "weights", "all_or_nothing"]
Range = tuple[float, float]
"""The lowest and the highest value of a scale."""


def capped(values: Mapping[str, float], caps: Mapping[str, str]) -> dict[str, float]:
    """Values of which none exceeds the one that caps it.

    Args:
        caps: by name the one whose value is the most that it may have. A name without a value, or
            capped by one without, is left as it is.
    """
    return {
        name: min(value, values.get(caps.get(name, name), value)) for name, value in values.items()
    }


def combined(
    values: Mapping[str, float],
    how: Combine,
    weights: Mapping[str, float] | None = None,
    full: float = 0.0,
) -> float:
    """One value of one or more.

    Args:
        weights: for `weights`: of each name, summed as they are; a name without a value, or
            without a weight, counts nothing.
        full: for `all_or_nothing`: 1 where every value reaches it, else 0.
    """
    match how:
        case "least":
            return min(values.values())
        case "mean":
            return sum(values.values()) / len(values)
        case "geometric_mean":
            return float(math.prod(values.values()) ** (1 / len(values)))
        case "weights":
            given = weights or {}
            return sum(given.get(name, 0.0) * value for name, value in values.items())
        case "all_or_nothing":
            return float(all(value >= full for value in values.values()))


def rescaled(value: float, of: Range, onto: Range) -> float:
    """A value of one scale on another: its distance from the lowest in proportion."""
    (low, high), (new_low, new_high) = of, onto
    return (value - low) * ((new_high - new_low) / (high - low)) + new_low
