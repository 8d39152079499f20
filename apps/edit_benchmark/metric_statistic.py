"""What scripts compute that measure edits themselves: means of metrics, which no judge is asked."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.edit_benchmark.official_statistic import Judged, Statistic, mean_of
from apps.edit_benchmark.pair import Pair


class MetricStatistic(Statistic):
    """Means over pairs.

    Attributes:
        names: of the script's metrics, each with the one of a judge of type `metrics`. The script's
            CLIP-T is of a caption, so that names that are only alike do not count.
    """

    def scores_of(self, pair: Pair, given: Mapping[str, float]) -> dict[str, float] | None:
        del pair
        return {n: given[key] for n, (key,) in self.names.items() if key in given} or None

    def means(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """The mean of each metric over the pairs that have it, and how many pairs have any.

        `lacking` says of how many of these pairs a metric is missing that others have.
        """
        scored = [one.scores for one in judged if one.scores]
        values = {name: [s[name] for s in scored if name in s] for name in self.names}
        lacking = {n: len(scored) - len(v) for n, v in values.items() if 0 < len(v) < len(scored)}
        found = {name: mean_of(each) for name, each in values.items()}
        return {**found, "scored": len(scored), **({"lacking": lacking} if lacking else {})}
