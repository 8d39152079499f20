"""GEdit-Bench: means over each group of edits, then over the groups, for each language.

Pairs of the intersection (`Intersection_exist`) are averaged once more by themselves. Published as
calculate_statistics.py in stepfun-ai/Step1X-Edit, GEdit-Bench.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from apps.edit_benchmark.official_statistic import STATISTICS, Judged, Statistic

GROUPS = (
    "background_change", "color_alter", "material_alter", "motion_change", "ps_human",
    "style_change", "subject-add", "subject-remove", "subject-replace", "text_change",
    "tone_transfer",
)  # fmt: skip
# The script's columns, its spelling included.
COLUMNS = (
    "source_image", "edited_image", "instruction", "sementics_score", "quality_score",
    "intersection_exist", "instruction_language",
)  # fmt: skip
BACKBONE = "qwen25vl"  # one of the two folders that the script reads; ours was another judge
LINE = ("semantics", "quality", "overall")


@STATISTICS.add_one("gedit")
class GEditStatistic(Statistic):
    """Semantics and quality from 0 to 10, and the root of their product."""

    script = "calculate_statistics.py of GEdit-Bench (github.com/stepfun-ai/Step1X-Edit)"
    names: Mapping[str, Sequence[str]] = {"SC": ("semantics",), "PQ": ("quality",)}

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """By language and subset: each group's line, their average, and how many have scores."""
        languages = dict.fromkeys(one.pair.language for one in judged if one.pair.language)
        return {
            language: {
                subset: _part([one for one in judged if _is_in(one, language, subset)])
                for subset in ("full", "intersection")
            }
            for language in languages
        }

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """One table for each group of the script, which reads all of them."""
        folder = PurePosixPath(model, BACKBONE, "eval_results_new")
        return {
            folder / f"{model}_{group}_gpt_score.csv": _csv(
                [one for one in judged if one.pair.category == group]
            )
            for group in GROUPS
        }


def _is_in(one: Judged, language: str, subset: str) -> bool:
    of_all = one.pair.intersection_exist is not False
    return one.pair.language == language and (subset == "full" or of_all)


def _part(judged: Sequence[Judged]) -> dict[str, Any]:
    found = {group for one in judged if (group := one.pair.category)}
    groups = {group: _line(judged, group) for group in GROUPS if group in found}
    lines = [line for line in groups.values() if line is not None]
    # As numpy adds, which decides the last digit.
    average = {name: float(np.mean([line[name] for line in lines])) for name in LINE}
    return {
        "groups": groups,
        "average": average if lines else None,
        "groups_scored": len(lines),
        "of_groups": len(GROUPS),
    }


def _line(judged: Sequence[Judged], group: str) -> dict[str, float] | None:
    scores = [
        one.scores
        for one in judged
        if one.pair.category == group and one.scores and {"SC", "PQ"} <= one.scores.keys()
    ]
    if not scores:
        return None
    return {
        "semantics": float(np.mean([s["SC"] for s in scores])),
        "quality": float(np.mean([s["PQ"] for s in scores])),
        "overall": float(np.mean([math.sqrt(s["SC"] * s["PQ"]) for s in scores])),
    }


def _csv(judged: Sequence[Judged]) -> str:
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for one in judged:
        if not one.scores or not {"SC", "PQ"} <= one.scores.keys():
            continue  # an empty score would spoil every mean
        writer.writerow(
            [
                one.source_image,
                one.edited_image,
                one.pair.instruction,
                one.scores["SC"],
                one.scores["PQ"],
                one.pair.intersection_exist is not False,
                one.pair.language or "en",
            ]
        )
    return stream.getvalue()
