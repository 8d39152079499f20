"""The choice among several edits of one pair: the one that the judge scores best."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from apps.edit_benchmark.pair_result import AttemptResult
from apps.edit_benchmark.records import Record
from apps.edit_benchmark.score_names import is_better_lower
from apps.edit_benchmark.verdicts import read_verdict

OVERALL = "O"


def best_of(attempts: Sequence[AttemptResult]) -> AttemptResult:
    """The edit with the best overall score, which is the lowest of a difference; of equal ones the
    first.

    One without a score counts less than any that has one, and one without an edit least.
    """

    def rank(attempt: AttemptResult) -> tuple[float, bool, bool, int]:
        score = _goodness(_scores(attempt))
        there, scored = attempt.edit.success, attempt.score is not None and attempt.score.success
        return (float("-inf") if score is None else score, scored, there, -attempt.number)

    return max(attempts, key=rank)


def _scores(attempt: AttemptResult) -> Mapping[str, float] | None:
    """The scores of an edit; None where it has none."""
    if attempt.score is None or not attempt.score.success:
        return None
    try:
        found: Mapping[str, float] | None = read_verdict(Path(str(attempt.score.output_path)))[
            "used"
        ]["scores"]
    except ValueError:
        return None
    return found


def _main(scores: Mapping[str, float]) -> str:
    """The name of the overall score of an edit: the one that is called so, else the last."""
    return OVERALL if OVERALL in scores else list(scores)[-1]


def _goodness(scores: Mapping[str, float] | None) -> float | None:
    """The overall score, or its opposite where less is better."""
    if not scores:
        return None
    name = _main(scores)
    return -scores[name] if is_better_lower(name) else float(scores[name])


def overall_of(scores: Mapping[str, float] | None) -> float | None:
    """The overall score among those of an edit."""
    return float(scores[_main(scores)]) if scores else None


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
    less = any(is_better_lower(_main(edit["scores"])) for r in several for edit in r.edits or ()
               if edit["scores"])  # fmt: skip
    best = min if less else max
    return {
        "edits_per_pair": max(len(record.edits or ()) for record in several),
        "pairs": len(several),
        "pairs_with_all_scores": len(full),
        "first": mean(found[0] for found in full) if full else None,
        "all": mean(mean(found) for found in full) if full else None,
        "best": mean(best(found) for found in full) if full else None,
        "chosen": [sum(r.chosen == i for r in several) for i in range(len(several[0].edits or ()))],
    }
