"""ImgEdit-Bench: each edit's mean of three ratings from 1 to 5, then means by edit type.

Every mean is rounded to two decimals before the next one is taken. Published as
step1_get_avgscore.py, step2_typescore.py and, for the UGE suite, get_average_score.py in
PKU-YuanGroup/ImgEdit, Benchmark.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from apps.edit_benchmark.layout import key_of
from apps.edit_benchmark.official_statistic import STATISTICS, Judged, Statistic, rounded_mean
from apps.edit_benchmark.pair import Pair

RATINGS = 3
UGE = "uge"  # the category of the pairs that are asked for one rating


@STATISTICS.add_one("imgedit")
class ImgEditStatistic(Statistic):
    """Three ratings, whose names differ by the type of the edit, or one."""

    script = "step1_get_avgscore.py and step2_typescore.py of ImgEdit (github.com/PKU-YuanGroup)"
    names: Mapping[str, Sequence[str]] = {}

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """The mean of each edit type, and of all edits as the UGE suite is told."""
        means = [(one.pair.category, mean) for one in judged if (mean := _mean(one)) is not None]
        types = dict.fromkeys(category for category, _ in means)
        return {
            "types": {t: rounded_mean([mean for kind, mean in means if kind == t]) for t in types},
            "average": rounded_mean([mean for _, mean in means]),
            "scored": len(means),
        }

    def scores_of(self, pair: Pair, given: Mapping[str, float]) -> dict[str, float] | None:
        """The ratings, whatever they are called; None where they are of another protocol."""
        wanted = 1 if pair.category == UGE else RATINGS
        # Whole numbers: the script reads no others.
        whole = all(float(value).is_integer() for value in given.values())
        return dict(given) if whole and len(given) == wanted else None

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """`result.json`: by key the lines of a judge's answer that the script reads."""
        answers = {
            key_of(one.pair): "\n".join(f"{name}: {int(v)}" for name, v in one.scores.items())
            for one in judged
            if one.scores
        }
        text = json.dumps(answers, ensure_ascii=False, indent=4)
        return {PurePosixPath(model, "result.json"): text + "\n"}


def _mean(one: Judged) -> float | None:
    return rounded_mean(list((one.scores or {}).values()))
