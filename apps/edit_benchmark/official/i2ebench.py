"""I2EBench: a mean for each of its tasks, and for each type of picture one over three measures.

Eight tasks are measured by SSIM with the right result, RegionAccuracy by SSIM outside of the mask,
StyleAlteration by a CLIP ViT-B/32, and six by the answers to questions. Both wordings stand by
themselves. Published as summary.py and summary_model_type_avg_score.py in cocoshe/I2EBench,
eval_scripts, from files of its other scripts there.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from apps.edit_benchmark.data_sets.i2ebench import ASKED, DIVERSE, ORIGINAL, RIGHT
from apps.edit_benchmark.official_statistic import STATISTICS, Judged, Statistic
from apps.edit_benchmark.pair import Pair

SSIM, REGION, CLIP, ACCURACY = "SSIM", "RegionAccuracy", "clip_score", "accuracy"
BY_TASK = {
    "RegionAccuracy": REGION,
    "StyleAlteration": CLIP,
    **dict.fromkeys(
        (
            "BGReplacement", "ColorAlteration", "Counting", "DirectionPerception", "ObjectRemoval",
            "Replacement",
        ),
        ACCURACY,
    ),
}  # fmt: skip
# Of the three measures that a type's score is the mean of.
BY_MEASURE = {SSIM: "ssim", REGION: "ssim", CLIP: "uniformed_clip", ACCURACY: "vlm"}
MOST_CLIP = 35.0  # what the script divides a CLIP score by
LOGIT_SCALE = 100.0  # a CLIP score is the cosine times this
FOLDERS = {ORIGINAL: "EditEval_ori", DIVERSE: "EditEval"}
DIGITS = 4


@STATISTICS.add_one("i2ebench")
class I2EBenchStatistic(Statistic):
    """What tasks are measured by is given by two judges; their figures are put together."""

    script = "summary.py and summary_model_type_avg_score.py of I2EBench (github.com/cocoshe)"
    names: Mapping[str, Sequence[str]] = {
        SSIM: ("ssim_padded_target",),
        REGION: ("ssim_padded_outside",),
        CLIP: ("clip_t_caption",),
        ACCURACY: ("correct",),
    }
    joins_judges = True

    def scores_of(self, pair: Pair, given: Mapping[str, float]) -> dict[str, float] | None:
        """The one score that the pair's task is measured by, as the script's files have it."""
        name = BY_TASK.get(pair.category, SSIM)
        value = given.get(self.names[name][0])
        if value is None:
            return None
        if name in (SSIM, REGION):
            value = round(value, DIGITS)
        return {name: value * LOGIT_SCALE if name == CLIP else value}

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        parts = {w: [one for one in judged if w in one.pair.subsets] for w in FOLDERS}
        return {wording: _part(part) for wording, part in parts.items() if part}

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """What the scripts write for each task, with the final judgement in the words they count;
        what else was said stands in the verdicts."""
        files: dict[PurePosixPath, dict[str, Any]] = defaultdict(dict)
        for one in judged:
            wording = DIVERSE if DIVERSE in one.pair.subsets else ORIGINAL
            if one.scores:
                place = PurePosixPath(FOLDERS[wording], one.pair.category, f"{model}.json")
                key = str(one.pair.given_id).removesuffix("_div" if wording == DIVERSE else "")
                files[place][key] = _row(one)
        return {place: json.dumps(rows, indent=4) for place, rows in files.items()}


def _part(judged: Sequence[Judged]) -> dict[str, Any]:
    by_task: dict[str, list[float]] = defaultdict(list)
    by_type: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in judged:
        name = BY_TASK.get(one.pair.category, SSIM)
        of_task = by_task[one.pair.category]
        of_type = by_type[_type(one.pair)][BY_MEASURE[name]]
        if one.scores:
            of_task.append(one.scores[name])
            of_type.append(one.scores[name] / (MOST_CLIP if name == CLIP else 1.0))
    return {
        "tasks": {task: _mean(values) for task, values in by_task.items()},
        "types": {kind: _type_line(measures) for kind, measures in by_type.items()},
        "scored": sum(map(len, by_task.values())),
    }


def _type(pair: Pair) -> str:
    """The script takes those of StyleAlteration, which have no type, for global."""
    return str(pair.metadata.get("type") or "global").lower()


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.array(values).mean()), DIGITS) if values else None


def _type_line(measures: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    """The mean of the three measures, of which one that a type's pairs are not measured by is 0.

    There is none while pairs wait for a judge that gives their measure.
    """
    means = {name: sum(m) / len(m) if m else None for name, m in measures.items()}
    known = [mean for mean in means.values() if mean is not None]
    score = None if len(known) < len(means) else round(sum(known) / 3, DIGITS)
    return {**means, "score": score}


def _row(one: Judged) -> dict[str, Any]:
    assert one.scores is not None
    [(name, value)] = one.scores.items()
    row: dict[str, Any] = {
        "image": one.pair.metadata.get("image", ""),
        "dataset": one.pair.category,
        "prompt": one.pair.instruction,
        "evaluation": {"VLM_judgement": ""} if name == ACCURACY else {name: value},
        "type": one.pair.metadata.get("type", ""),
    }
    if name == ACCURACY:
        row["question"] = one.pair.metadata.get(ASKED, "")
        row |= {"gt": one.pair.metadata.get(RIGHT, ""), "final_judgement": "Yes" if value else "No"}
    return row
