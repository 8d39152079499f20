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
from apps.edit_benchmark.official_statistic import STATISTICS, Judged

RATINGS = 3


@STATISTICS.add_one("imgedit")
class ImgEditStatistic:
    """Three ratings, whose names differ by the type of the edit."""

    script = "step1_get_avgscore.py and step2_typescore.py of ImgEdit (github.com/PKU-YuanGroup)"
    ratings = RATINGS
    names: Mapping[str, Sequence[str]] = {}

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """The mean of each edit type, and of all edits as the UGE suite is told."""
        means = [(one.pair.category, mean) for one in judged if (mean := _mean(one)) is not None]
        types = dict.fromkeys(category for category, _ in means)
        return {
            "types": {t: _rounded([mean for kind, mean in means if kind == t]) for t in types},
            "average": _rounded([mean for _, mean in means]),
            "scored": len(means),
        }

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """`result.json`: by key the lines of a judge's answer that the script reads."""
        answers = {
            key_of(one.pair): "\n".join(f"{name}: {int(v)}" for name, v in _ratings(one).items())
            for one in judged
            if _mean(one) is not None
        }
        text = json.dumps(answers, ensure_ascii=False, indent=4)
        return {PurePosixPath(model, "result.json"): text + "\n"}


def _ratings(one: Judged) -> dict[str, float]:
    """The three ratings of an edit, which are whole numbers: the script reads no others."""
    whole = {n: v for n, v in (one.scores or {}).items() if float(v).is_integer()}
    return whole if len(whole) == RATINGS else {}


def _mean(one: Judged) -> float | None:
    return _rounded(list(_ratings(one).values()))


def _rounded(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None
