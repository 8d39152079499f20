"""Complex-Edit: means of three scores from 0 to 10 over all edits, by split and complexity.

Published as eval.py in UCSC-VLAA/Complex-Edit, which rates and averages in one.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from apps.edit_benchmark.layout import LAYOUTS
from apps.edit_benchmark.official_statistic import (
    STATISTICS,
    Judged,
    Statistic,
    by_category,
    mean_of,
    parts_by,
)

ALIGNMENT = ("instruction_following", "identity_preservation")
QUALITY = ("perceptual_quality",)
RATINGS = (*ALIGNMENT, *QUALITY)
FOLDERS = {"alignment_rubric_cot": ALIGNMENT, "quality_rubric": QUALITY}


@STATISTICS.add_one("complex_edit")
class ComplexEditStatistic(Statistic):
    """Instruction following, identity preservation, perceptual quality, and the mean of these."""

    script = "eval.py of Complex-Edit (github.com/UCSC-VLAA/Complex-Edit)"
    names: Mapping[str, Sequence[str]] = dict.fromkeys(RATINGS, ())

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """By split, and in it by complexity or step."""
        return {
            split: {level: _line(part) for level, part in parts_by(of_split, _level).items()}
            for split, of_split in by_category(judged).items()
        }

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """What the script writes for each edit, and takes as done with `--resume`."""
        files = {}
        for one in judged:
            scores = _rated(one)
            place = PurePosixPath(model, LAYOUTS["complex_edit"].place(one.pair))
            for folder, names in FOLDERS.items() if scores else ():
                found = {name: scores[name] for name in names}
                told = {"instruction": one.pair.instruction, "runs": [], **found}
                file = place.parent / folder / f"{place.name}.json"
                files[file] = json.dumps(told, ensure_ascii=False, indent=4)
        return files


def _level(one: Judged) -> str:
    return one.pair.pair_id.rpartition("_")[2]


def _rated(one: Judged) -> Mapping[str, float]:
    """All three ratings; empty where one is missing."""
    scores = one.scores or {}
    return scores if set(RATINGS) <= scores.keys() else {}


def _line(judged: Sequence[Judged]) -> dict[str, Any]:
    rated = [scores for one in judged if (scores := _rated(one))]
    means = {name: mean_of([scores[name] for scores in rated]) for name in RATINGS}
    overall = mean_of([sum(scores[name] for name in RATINGS) / len(RATINGS) for scores in rated])
    return {**means, "overall": overall, "scored": len(rated)}
