"""Pair accuracy: how often a judge prefers what people prefer, with ties as published.

- Where people never call a tie (EditScore's EditReward-Bench, the groups of 3 and 4 of
  TIGER-Lab's), a comparison is right if the preferred candidate's score is strictly higher. A
  judge that gives both the same score is wrong.
- Where they do (TIGER-Lab's groups of 2), two scores that differ by no more than epsilon count as
  a tie, and epsilon is the one with the highest accuracy: tie calibration (Deutsch et al. 2023,
  arXiv:2305.14324). It is chosen on the same comparisons, for every judge alike.

EditScore reports the mean over tasks (calculate_statistics.py), TIGER-Lab accuracy over all
comparisons, and how many groups have their candidates in the right order (eval_bench.py): here are
all three. In an order epsilon decides on ties alone: whoever people prefer has to be ahead, by
however little; and it is the epsilon of the group's own task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apps.edit_benchmark.preferences import Comparison
from apps.edit_benchmark.statistics import CHUNK, LEVEL, Interval

MEAN, ALL = "mean of tasks", "all comparisons"
Scores = Mapping[str, float]  # by the name of the pair


@dataclass(frozen=True)
class Accuracy:
    """One row: a task, their mean, or all comparisons.

    Attributes:
        comparisons: that count: both candidates have a score.
        unscored: that do not.
        accuracy: share of right ones, with a 95 % bootstrap interval over groups; None of none.
        groups: of candidates, and how many of them are in the right order.
        epsilon: scores that differ by no more are a tie; None where people call none.
    """

    task: str
    comparisons: int
    unscored: int
    accuracy: Interval | None
    groups: int
    groups_right: int
    epsilon: float | None


@dataclass(frozen=True)
class _Judged:
    """Comparisons of a task whose candidates have scores."""

    task: str
    comparisons: list[Comparison]
    differences: list[float]  # score of the preferred candidate less that of the other
    unscored: int


def accuracies(comparisons: Sequence[Comparison], scores: Scores, samples: int) -> list[Accuracy]:
    """A row for each task, then their mean and all comparisons.

    Args:
        comparisons: of one dimension.
        samples: resamplings behind an interval.
    """
    tasks = list(dict.fromkeys(c.category for c in comparisons))
    judged = [_judge(t, [c for c in comparisons if c.category == t], scores) for t in tasks]
    rows = [_row(task, samples) for task in judged]
    whole = _row(_judge(ALL, comparisons, scores), samples)
    whole = replace(whole, groups_right=sum(row.groups_right for row in rows))
    return [*rows, _mean_row(rows, judged, samples), whole]


def _judge(task: str, comparisons: Sequence[Comparison], scores: Scores) -> _Judged:
    known = [c for c in comparisons if c.first in scores and c.second in scores]
    differences = [(scores[c.first] - scores[c.second]) * (c.preferred or 1) for c in known]
    return _Judged(task, known, differences, len(comparisons) - len(known))


def _row(judged: _Judged, samples: int) -> Accuracy:
    epsilon, right, groups = _decided(judged)
    return Accuracy(
        judged.task,
        len(right),
        judged.unscored,
        _interval([groups], samples),
        len(groups),
        _in_order(judged, epsilon),
        epsilon,
    )


def _in_order(judged: _Judged, epsilon: float | None) -> int:
    """How many groups have all of their candidates in the right order."""
    ranked = [
        abs(difference) <= (epsilon or 0.0) if compared.preferred == 0 else difference > 0
        for compared, difference in zip(judged.comparisons, judged.differences, strict=True)
    ]
    return sum(hits == count for hits, count in _by_group(judged, ranked))


def _mean_row(rows: Sequence[Accuracy], judged: Sequence[_Judged], samples: int) -> Accuracy:
    by_task = [groups for task in judged if (groups := _decided(task)[2])]
    return Accuracy(
        MEAN,
        sum(row.comparisons for row in rows),
        sum(row.unscored for row in rows),
        _interval(by_task, samples),
        sum(row.groups for row in rows),
        sum(row.groups_right for row in rows),
        None,
    )


def _decided(judged: _Judged) -> tuple[float | None, list[bool], list[tuple[int, int]]]:
    """Epsilon, which comparisons are right, and by group how many, and of how many."""
    ties = [c.preferred == 0 for c in judged.comparisons]
    epsilon = calibrated_epsilon(ties, judged.differences) if any(ties) else None
    right = are_right(ties, judged.differences, epsilon)
    return epsilon, right, _by_group(judged, right)


def _by_group(judged: _Judged, right: Sequence[bool]) -> list[tuple[int, int]]:
    """By group how many comparisons are right, and of how many."""
    by_group: dict[tuple[str, str], list[bool]] = {}
    for compared, hit in zip(judged.comparisons, right, strict=True):
        by_group.setdefault((compared.category, compared.group), []).append(hit)
    return [(sum(hits), len(hits)) for hits in by_group.values()]


def are_right(
    ties: Sequence[bool], differences: Sequence[float], epsilon: float | None
) -> list[bool]:
    """Whether the judge decides as people do.

    Args:
        differences: score of the preferred candidate less that of the other.
        epsilon: the largest difference that is a tie; None: no difference is one.
    """
    if epsilon is None:
        return [difference > 0 for difference in differences]
    return [
        abs(difference) <= epsilon if tie else difference > epsilon
        for tie, difference in zip(ties, differences, strict=True)
    ]


def calibrated_epsilon(ties: Sequence[bool], differences: Sequence[float]) -> float:
    """The epsilon with the most right decisions; of several the least."""
    sizes = np.abs(np.asarray(differences, float))
    of_ties = np.sort(sizes[np.asarray(ties, bool)])
    won = np.sort(sizes[~np.asarray(ties, bool) & (np.asarray(differences, float) > 0)])
    thresholds = np.unique(np.concatenate([[0.0], sizes]))
    right = np.searchsorted(of_ties, thresholds, "right") + len(won)
    right -= np.searchsorted(won, thresholds, "right")
    return float(thresholds[int(np.argmax(right))])


def _interval(by_task: Sequence[Sequence[tuple[int, int]]], samples: int) -> Interval | None:
    """Mean over the tasks' accuracies; what is resampled are a task's groups."""
    filled = [np.asarray(groups, float) for groups in by_task if len(groups)]
    if not filled:
        return None
    middle = float(np.mean([task[:, 0].sum() / task[:, 1].sum() for task in filled]))
    if max(map(len, filled)) == 1:
        return Interval(middle, None, None)
    random = np.random.default_rng(0)
    total = np.zeros(samples)
    for task in filled:
        rows = max(1, CHUNK // len(task))
        for start in range(0, samples, rows):
            size = (min(rows, samples - start), len(task))
            drawn = task[random.integers(0, len(task), size)].sum(1)
            total[start : start + rows] += drawn[:, 0] / drawn[:, 1]
    low, high = np.percentile(total / len(filled), LEVEL)
    return Interval(middle, float(low), float(high))
