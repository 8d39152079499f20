"""How ratios are shown: the median, and the range over the rounds in brackets."""

from collections.abc import Sequence
from statistics import median


def times_faster(base: Sequence[float], values: Sequence[float], digits: int = 2) -> str:
    """`base` over `values`, round by round."""
    ratios = sorted(b / v for b, v in zip(base, values, strict=True))
    middle, low, high = (f"{r:.{digits}f}" for r in (median(ratios), ratios[0], ratios[-1]))
    return f"{middle} ({low}-{high})"
