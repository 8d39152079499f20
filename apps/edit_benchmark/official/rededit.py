"""REDEdit-Bench: each edit's mean of three ratings from 1 to 5, then means by task, then of those.

The first two means are rounded to two decimals, the last is not. Published as redbench_eval.py in
FireRedTeam/FireRed-Image-Edit, rededit_bench, which rates and averages in one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.edit_benchmark.official_statistic import (
    STATISTICS,
    Judged,
    Statistic,
    by_language,
    mean_of,
    rounded_mean,
)
from apps.edit_benchmark.pair import Pair

RATINGS = 3


@STATISTICS.add_one("rededit")
class RedEditStatistic(Statistic):
    """Three ratings, whose names differ by the task."""

    script = "redbench_eval.py of REDEdit-Bench (github.com/FireRedTeam/FireRed-Image-Edit)"
    names: Mapping[str, Sequence[str]] = {}

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """By language: the mean of each task, and of the tasks."""
        return {language: _part(part) for language, part in by_language(judged).items()}

    def scores_of(self, pair: Pair, given: Mapping[str, float]) -> dict[str, float] | None:
        """The ratings, whatever they are called; None where they are of another protocol."""
        del pair
        whole = all(float(value).is_integer() for value in given.values())
        return dict(given) if whole and len(given) == RATINGS else None


def _part(judged: Sequence[Judged]) -> dict[str, Any]:
    means = [
        (one.pair.category, mean)
        for one in judged
        if (mean := rounded_mean(list((one.scores or {}).values()))) is not None
    ]
    tasks = {
        task: rounded_mean([mean for other, mean in means if other == task])
        for task in dict.fromkeys(task for task, _ in means)
    }
    final = mean_of([mean for mean in tasks.values() if mean is not None])
    return {"tasks": tasks, "final_score": final, "scored": len(means)}
