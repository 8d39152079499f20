"""Several judgements of one edit: each is drawn anew, and the scores are their means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

from core.judge_protocol import JudgePrompts
from core.judge_rows import Row
from core.messages import Lease
from core.tasks import ScoreTask

SEEDS_APART = 1_000  # of two passes: further asks within one draw from the seeds between


@dataclass(frozen=True)
class Passes:
    """What some passes came to.

    Attributes:
        scores: means of each score over the passes that gave it; None where no pass gave all.
        spread: standard deviations over those passes, of the whole group and not of a sample.
        scored: how many passes gave all scores.
    """

    scores: dict[str, float] | None
    spread: dict[str, float]
    scored: int

    @classmethod
    def of(
        cls, prompts: JudgePrompts, row: Row, answers: Sequence[Sequence[Mapping[str, Any]]]
    ) -> "Passes":
        """The means of the scores of passes.

        One answer that cannot be read costs its own score and those made of it: as EditScore
        averages, the other scores of its pass count. (EditScore draws a random score for it.)

        Args:
            answers: those of each pass, in the order of the calls.
        """
        each = [prompts.scores_of(row, some) for some in answers]
        given = [scores for scores in each if scores is not None]
        if not given:
            return cls(None, {}, 0)
        if len(each) == 1:
            return cls(given[0], {}, 1)
        told = [
            prompts.readable_of(row, some) if scores is None else scores
            for scores, some in zip(each, answers, strict=True)
        ]
        values = {name: [s[name] for s in told if name in s] for name in given[0]}
        means = {name: fmean(some) for name, some in values.items()}
        return cls(means, {name: pstdev(some) for name, some in values.items()}, len(given))

    def record(self, number: int) -> dict[str, Any]:
        """What a verdict says of them; nothing where there was one alone."""
        if number == 1:
            return {}
        return {"num_pass": number, "passes_scored": self.scored, "spread": self.spread}


def why_unscored(lease: Lease, calls: Sequence[Mapping[str, Any]]) -> str:
    """Why an edit has no score, from its answers as a verdict records them."""
    problems = [f"{a['name']}: {a['problem']}" for a in calls if a.get("problem")]
    return f"{lease.task.task_id}: no score: {'; '.join(dict.fromkeys(problems))}"


def for_pass(lease: Lease, number: int) -> Lease:
    """A lease whose answers are drawn from another seed; the first pass draws from the task's."""
    if number == 0:
        return lease
    assert isinstance(lease.task, ScoreTask)
    seed = (lease.task.seed or 0) + number * SEEDS_APART
    return replace(lease, task=replace(lease.task, seed=seed))
