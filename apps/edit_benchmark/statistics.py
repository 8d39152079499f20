"""Means with bootstrap intervals, and rank correlation.

Intervals are percentile bootstraps (Efron 1979) at 95 %, from a seeded generator, so that a
table computed twice is the same table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = (2.5, 97.5)  # percentiles
CHUNK = 4_000_000  # resampled values held at once


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], samples: int, seed: int) -> Interval | None:
    """The mean of `values`; None of none."""
    return bootstrap_mean_of_means([values], samples, seed)


def bootstrap_mean_of_means(
    groups: Sequence[Sequence[float]], samples: int, seed: int
) -> Interval | None:
    """The mean over the groups' means, each group resampled by itself; empty ones are left out."""
    filled = [np.asarray(group, float) for group in groups if len(group)]
    if not filled:
        return None
    random = np.random.default_rng(seed)
    total = np.zeros(samples)
    for group in filled:
        total += _resampled_means(group, samples, random)
    low, high = np.percentile(total / len(filled), LEVEL)
    return Interval(float(np.mean([g.mean() for g in filled])), float(low), float(high))


def _resampled_means(
    group: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    samples: int,
    random: np.random.Generator,
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    rows = max(1, CHUNK // len(group))
    means = [
        group[random.integers(0, len(group), (min(rows, samples - start), len(group)))].mean(1)
        for start in range(0, samples, rows)
    ]
    return np.concatenate(means)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho, ties at their mean rank; None where it is undefined."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Sequence[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray[tuple[int], np.dtype[np.float64]] = (last - (counts - 1) / 2)[inverse]
    return ranks
