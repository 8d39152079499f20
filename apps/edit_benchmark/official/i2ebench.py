"""I2EBench: a mean for each of its tasks, and for each type of picture one over three measures.

Eight tasks are measured by SSIM with the right result, RegionAccuracy by SSIM outside of the mask,
StyleAlteration by a CLIP ViT-B/32, and six by the answers to questions. Both wordings stand by
themselves. Published as summary.py and summary_model_type_avg_score.py in cocoshe/I2EBench,
eval_scripts, from files of its other scripts there.

Later rounds have the same figures by themselves. Over rounds two to five, and over all five, an
edit counts as wrong once the answer about it or about an edit before it was wrong: so in
summary_round2345.py and summary_all.py, and in a notebook for the types of pictures.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from apps.edit_benchmark.data_sets.i2ebench import (
    ASKED,
    DIVERSE,
    ORIGINAL,
    RIGHT,
    folder_of,
    key_of_row,
    round_of,
)
from apps.edit_benchmark.official_statistic import STATISTICS, Judged, Statistic, by_category
from apps.edit_benchmark.pair import Pair

SSIM, REGION, CLIP, ACCURACY = "SSIM", "RegionAccuracy", "clip_score", "accuracy"
FIRST = (
    "Deblurring", "HazeRemoval", "Lowlight", "NoiseRemoval", "RainRemoval", "ShadowRemoval",
    "SnowRemoval", "WatermarkRemoval", "RegionAccuracy",
)  # fmt: skip
"""Tasks of one round."""
QUESTIONS = (
    "BGReplacement", "ColorAlteration", "Counting", "DirectionPerception", "ObjectRemoval",
    "Replacement",
)  # fmt: skip
STYLE = "StyleAlteration"
LATER = frozenset({STYLE, *QUESTIONS})
"""Tasks of five rounds."""
ALL = LATER | frozenset(FIRST)
BY_TASK = {"RegionAccuracy": REGION, STYLE: CLIP, **dict.fromkeys(QUESTIONS, ACCURACY)}
# Of the three measures that a type's score is the mean of.
BY_MEASURE = {SSIM: "ssim", REGION: "ssim", CLIP: "uniformed_clip", ACCURACY: "vlm"}
MOST_CLIP = 35.0  # what the script divides a CLIP score by
LOGIT_SCALE = 100.0  # a CLIP score is the cosine times this
WORDINGS = (ORIGINAL, DIVERSE)
DIGITS = 4
# Whose edits the notebook counts twice: it takes every folder with "Replacement" in its name.
TWICE = "BGReplacement"


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
        parts = {w: [one for one in judged if w in one.pair.subsets] for w in WORDINGS}
        return {wording: _wording(part) for wording, part in parts.items() if part}

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """What the scripts write for each task, with the final judgement in the words they count;
        what else was said stands in the verdicts."""
        files: dict[PurePosixPath, dict[str, Any]] = defaultdict(dict)
        for one in judged:
            value = _value(one)
            if value is not None:
                folder = folder_of(one.pair, "EditEval")
                place = PurePosixPath(folder, one.pair.category, f"{model}.json")
                files[place][key_of_row(one.pair)] = _row(one, value)
        return {place: json.dumps(rows, indent=4) for place, rows in files.items()}


def _value(one: Judged) -> float | None:
    """The score that counts; an answer that cannot be read does not say yes, and is wrong."""
    if one.scores:
        [value] = one.scores.values()
        return value
    return 0.0 if one.unread and BY_TASK.get(one.pair.category) == ACCURACY else None


def _wording(judged: Sequence[Judged]) -> dict[str, Any]:
    """The figures of the first round, and below them those of later ones where there are any."""
    rounds: dict[int, list[Judged]] = defaultdict(list)
    for one in judged:
        rounds[round_of(one.pair)].append(one)
    later = [number for number in sorted(rounds) if number > 1]
    table = _part(rounds[1], ALL)
    if not later:
        return table
    after_first = [one for number in later for one in rounds[number]]
    twice = [one for one in after_first if one.pair.category == TWICE]
    return {
        **table,
        "rounds": {str(number): _part(rounds[number], LATER) for number in later},
        "rounds_2_to_5": {
            "tasks": _through(rounds, later),
            "types": _types([*after_first, *twice], LATER),
        },
        "all_rounds": {"tasks": _through(rounds, [1, *later])},
    }


def _part(judged: Sequence[Judged], tasks: frozenset[str]) -> dict[str, Any]:
    """The figures of one round.

    Args:
        tasks: that the script has for it.
    """
    by_task = {
        task: [value for one in part if (value := _value(one)) is not None]
        for task, part in by_category(judged).items()
    }
    unread = sum(not one.scores and _value(one) is not None for one in judged)
    return {
        "tasks": {task: _mean(values) for task, values in by_task.items()},
        "types": _types(judged, tasks),
        "scored": sum(map(len, by_task.values())),
        **({"unread_counted_as_wrong": unread} if unread else {}),
    }


def _types(judged: Sequence[Judged], tasks: frozenset[str]) -> dict[str, Any]:
    by_type: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in judged:
        name = BY_TASK.get(one.pair.category, SSIM)
        of_type = by_type[_type(one.pair)][BY_MEASURE[name]]
        value = _value(one)
        if value is not None:
            of_type.append(value / (MOST_CLIP if name == CLIP else 1.0))
    whole = tasks <= {one.pair.category for one in judged}
    return {kind: _type_line(measures, whole) for kind, measures in by_type.items()}


def _through(rounds: Mapping[int, Sequence[Judged]], counted: Sequence[int]) -> dict[str, Any]:
    """The mean of each task over several rounds, not rounded.

    What follows an edit of which nothing is known is left out.
    """
    tasks = dict.fromkeys(o.pair.category for n in sorted(rounds) if n > 1 for o in rounds[n])
    values: dict[str, list[float]] = {task: [] for task in tasks if task in LATER}
    right: dict[tuple[str, str], bool | None] = {}  # whether all answers so far were, by row
    for number in sorted(rounds):
        for one in rounds[number]:
            task = one.pair.category
            if task not in values:
                continue
            value = _value(one)
            if BY_TASK[task] == ACCURACY:
                row = task, key_of_row(one.pair)
                before = right.get(row, True if number == 1 else None)
                value = None if value is None or before is None else value * before
                right[row] = before and (None if value is None else bool(value))
            if value is not None and number in counted:
                values[task].append(value)
    return {task: float(np.array(of_task).mean()) if of_task else None
            for task, of_task in values.items()}  # fmt: skip


def _type(pair: Pair) -> str:
    """The script takes those of StyleAlteration, which have no type, for global."""
    return str(pair.metadata.get("type") or "global").lower()


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.array(values).mean()), DIGITS) if values else None


def _type_line(measures: Mapping[str, Sequence[float]], whole: bool) -> dict[str, float | None]:
    """The mean of the three measures, of which one that a type's pairs are not measured by is 0.

    There is none while pairs wait for a judge that gives their measure.

    Args:
        whole: pairs of all tasks are there; without some, measures would be 0 that are not.
    """
    means = {name: sum(m) / len(m) if m else None for name, m in measures.items()}
    known = [mean for mean in means.values() if mean is not None]
    score = round(sum(known) / 3, DIGITS) if whole and len(known) == len(means) else None
    return {**means, "score": score}


def _row(one: Judged, value: float) -> dict[str, Any]:
    name = BY_TASK.get(one.pair.category, SSIM)
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
