"""Means with bootstrap intervals.

Intervals are percentile bootstraps (Efron 1979) at 95 %, from a seeded generator, so that a
table computed twice is the same table. What is resampled are pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = (2.5, 97.5)  # percentiles
CHUNK = 4_000_000  # resampled values held at once


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval; None where a group has a single value."""

    mean: float
    low: float | None
    high: float | None


def bootstrap_mean(values: Sequence[float], samples: int, seed: int) -> Interval | None:
    """The mean of `values`; None of none."""
    return bootstrap_mean_of_means([values], samples, seed)


def bootstrap_mean_of_means(
    groups: Sequence[Sequence[float]], samples: int, seed: int
) -> Interval | None:
    """The mean over the groups' means, each group resampled by itself; empty ones are left out.

    A group of one value does not say how far its mean can be off. Resampled, it would count as
    exact and make the interval too narrow, so there is none.
    """
    filled = [np.asarray(group, float) for group in groups if len(group)]
    if not filled:
        return None
    middle = float(np.mean([g.mean() for g in filled]))
    if min(map(len, filled)) == 1:
        return Interval(middle, None, None)
    random = np.random.default_rng(seed)
    total = np.zeros(samples)
    for group in filled:
        total += _resampled_means(group, samples, random)
    low, high = np.percentile(total / len(filled), LEVEL)
    return Interval(middle, float(low), float(high))


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
