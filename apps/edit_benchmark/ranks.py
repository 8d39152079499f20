"""Rank correlations: do two judges put the same edits in the same order?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 3  # values; two are always in the same order or in the opposite one
CHUNK = 8_000_000  # comparisons held at once


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho and Kendall's tau-b over `n` values; None where all values are equal."""

    n: int
    spearman: float | None
    kendall: float | None


def correlate(a: Sequence[float], b: Sequence[float]) -> RankCorrelation:
    """Both rank correlations of two rows of values of the same length."""
    return RankCorrelation(len(a), spearman(a, b), kendall(a, b))


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho, ties at their mean rank; None where it is undefined."""
    if _undefined(a, b):
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b, which allows for ties on either side; None where it is undefined."""
    if _undefined(a, b):
        return None
    x, y = np.asarray(a, float), np.asarray(b, float)
    agreement = untied_x = untied_y = 0
    rows = max(1, CHUNK // len(x))
    for start in range(0, len(x), rows):
        order_x = np.sign(x[start : start + rows, None] - x).astype(np.int8)
        order_y = np.sign(y[start : start + rows, None] - y).astype(np.int8)
        agreement += int((order_x * order_y).sum(dtype=np.int64))
        untied_x += int(np.count_nonzero(order_x))
        untied_y += int(np.count_nonzero(order_y))
    return float(agreement / np.sqrt(float(untied_x) * untied_y))


def _undefined(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) < LEAST or len(set(a)) == 1 or len(set(b)) == 1


def _ranks(values: Sequence[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray[tuple[int], np.dtype[np.float64]] = (last - (counts - 1) / 2)[inverse]
    return ranks
