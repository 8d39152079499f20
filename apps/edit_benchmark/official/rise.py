"""RISEBench: weighted scores from 1 to 5, and accuracy: the share of edits without any fault.

Published as gpt_eval.py in PhoenixZ810/RISEBench. An edit whose answers give no score has none in
the means and counts as not accurate.
"""

import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from apps.edit_benchmark.layout import key_of
from apps.edit_benchmark.official_statistic import STATISTICS, Judged, Statistic

CATEGORIES = {
    "Temporal": "temporal_reasoning",
    "Causal": "causal_reasoning",
    "Spatial": "spatial_reasoning",
    "Logical": "logical_reasoning",
}
LOGICAL = CATEGORIES["Logical"]
FREE = "consistency_free"  # the column of edits whose consistency is not asked for
SUBTASK = "subtask"
FULL = 5


@STATISTICS.add_one("rise")
class RiseStatistic(Statistic):
    """Reasoning, consistency, and for all but logical edits plausibility."""

    script = "gpt_eval.py of RISEBench (github.com/PhoenixZ810/RISEBench)"
    names: Mapping[str, Sequence[str]] = {
        "Reasoning": ("instruction_reasoning", "reason", "judge2"),
        "ApprConsistency": ("consistency", "appearance_consistency", "judge1"),
        "VisualPlausibility": ("plausibility", "quality", "generation", "judge3"),
    }

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """Overall and by category: score, the same in percent, accuracy; then each rating."""
        free = any(FREE in one.pair.metadata for one in judged)
        parts = {"Overall": list(judged)}
        parts |= {n: [o for o in judged if o.pair.category == c] for n, c in CATEGORIES.items()}
        subtasks: dict[str, list[Judged]] = defaultdict(list)
        for one in judged:
            if one.pair.metadata.get(SUBTASK):
                subtasks[str(one.pair.metadata[SUBTASK])].append(one)
        ratings = {
            rating: {name: _line(part, _rating(rating)) for name, part in parts.items()}
            for rating in self.names
        }
        return {
            "scores": {name: _scores(part, free) for name, part in parts.items()},
            "ratings": ratings,
            "subtasks": {name: _scores(part, free) for name, part in sorted(subtasks.items())},
        }

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """`<model>.pkl`: the judge's answers by index, from which the script goes on."""
        answers = {key_of(one.pair): _answers(one) for one in judged if _is_rated(one)}
        return {PurePosixPath("outputs", model, f"{model}.pkl"): pickle.dumps(answers)}


def _scores(judged: Sequence[Judged], free: bool) -> dict[str, Any]:
    """Score, the same in percent, and accuracy of a part."""
    accuracy = _mean([float(_is_complete(one)) for one in judged])
    return {**_line(judged, lambda one: _score(one, free)), "accuracy": accuracy}


def _line(judged: Sequence[Judged], value_of: Callable[[Judged], float | None]) -> dict[str, Any]:
    mean = _mean([value_of(one) for one in judged])
    return {"score": mean, "percent": None if mean is None else 25 * (mean - 1)}


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is there, added as pandas adds, which decides the last digit."""
    count = sum(value is not None for value in values)
    return float(np.sum([value or 0.0 for value in values]) / count) if count else None


def _rating(name: str) -> Callable[[Judged], float | None]:
    return lambda one: (one.scores or {}).get(name) if _is_rated(one) else None


def _is_free(one: Judged) -> bool:
    return one.pair.metadata.get(FREE) not in (None, False)


def _needed(one: Judged) -> list[str]:
    """The ratings that an edit is asked for."""
    consistency = [] if _is_free(one) else ["ApprConsistency"]
    plausible = [] if one.pair.category == LOGICAL else ["VisualPlausibility"]
    return ["Reasoning", *consistency, *plausible]


def _is_rated(one: Judged) -> bool:
    return one.scores is not None and all(name in one.scores for name in _needed(one))


def _score(one: Judged, free: bool) -> float | None:
    """The weighted score of an edit.

    Args:
        free: some edit of the data has the column `consistency_free`. The script then takes the
            weights without consistency for all edits but logical ones: a table has no number where
            a row says nothing, and Python takes that for true.
    """
    scores = one.scores
    if scores is None or not _is_rated(one):
        return None
    reasoning = scores["Reasoning"]
    if one.pair.category == LOGICAL:
        score = 0.3 * scores["ApprConsistency"] + 0.7 * reasoning
    elif free and one.pair.metadata.get(FREE) is not False:
        score = 0.2 * scores["VisualPlausibility"] + 0.8 * reasoning
    else:
        score = 0.3 * scores["ApprConsistency"] + 0.5 * reasoning
        score += 0.2 * scores["VisualPlausibility"]
    return max(1.0, score * 0.5) if reasoning == 1 else score


def _is_complete(one: Judged) -> bool:
    """All ratings are full; an edit whose consistency is not asked for never is, in the script."""
    names = ["Reasoning", "ApprConsistency"]
    names += [] if one.pair.category == LOGICAL else ["VisualPlausibility"]
    return one.scores is not None and all(one.scores.get(name) == FULL for name in names)


def _answers(one: Judged) -> dict[str, str | None]:
    """Answers as the script reads them; of logical edits it asks whether there is a fault."""
    assert one.scores is not None
    logical = one.pair.category == LOGICAL

    def said(name: str) -> str:
        value = one.scores[name] if one.scores else 0
        return f"Final Score: {int((value - 1) / 4 if logical else value)}"

    answers: dict[str, str | None] = {"judge1": None if _is_free(one) else said("ApprConsistency")}
    answers["judge2"] = said("Reasoning")
    return answers if logical else {**answers, "judge3": said("VisualPlausibility")}
