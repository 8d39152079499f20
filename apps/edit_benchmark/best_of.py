"""The choice among several edits of one pair: the one that the judge scores highest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from apps.edit_benchmark.pair_result import AttemptResult
from apps.edit_benchmark.records import Record
from apps.edit_benchmark.verdicts import read_verdict

OVERALL = "O"


def best_of(attempts: Sequence[AttemptResult]) -> AttemptResult:
    """The edit with the highest overall score; of equal ones the first.

    One without a score counts less than any that has one, and one without an edit least.
    """

    def rank(attempt: AttemptResult) -> tuple[float, bool, bool, int]:
        score = overall(attempt)
        there, scored = attempt.edit.success, attempt.score is not None and attempt.score.success
        return (float("-inf") if score is None else score, scored, there, -attempt.number)

    return max(attempts, key=rank)


def overall(attempt: AttemptResult) -> float | None:
    """The overall score of an edit; None where it has none."""
    if attempt.score is None or not attempt.score.success:
        return None
    try:
        scores = read_verdict(Path(str(attempt.score.output_path)))["used"]["scores"]
    except ValueError:
        return None
    return overall_of(scores)


def overall_of(scores: Mapping[str, float] | None) -> float | None:
    """The overall score among those of an edit: the one that is called so, else the last."""
    if not scores:
        return None
    return float(scores.get(OVERALL, list(scores.values())[-1]))


def choice_summary(records: Sequence[Record]) -> dict[str, Any] | None:
    """What the choice among several edits gained; None where pairs have one edit each.

    Means of the overall score over the pairs of which every edit has one: of the first edit, as in
    a run with one for each pair, of all edits, and of the best.
    """
    several = [record for record in records if record.edits]
    if not several:
        return None
    scores = [[overall_of(edit["scores"]) for edit in record.edits or ()] for record in several]
    full = [
        [float(s) for s in found if s is not None]
        for found in scores
        if all(s is not None for s in found)
    ]
    return {
        "edits_per_pair": max(len(record.edits or ()) for record in several),
        "pairs": len(several),
        "pairs_with_all_scores": len(full),
        "first": mean(found[0] for found in full) if full else None,
        "all": mean(mean(found) for found in full) if full else None,
        "best": mean(max(found) for found in full) if full else None,
        "chosen": [sum(r.chosen == i for r in several) for i in range(len(several[0].edits or ()))],
    }
