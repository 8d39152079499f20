"""Two judges on the same edits, and one judge several times: do they say the same?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, pstdev

from apps.edit_benchmark.agreement.verdicts import JudgeRun
from apps.edit_benchmark.ranks import RankCorrelation, correlate


@dataclass(frozen=True)
class SameOrder:
    """One score of two judges over the edits that both scored.

    Attributes:
        first, second: numbers of the judges.
        equal: share of edits to which both give the very same score.
        distance: mean of the differences, without their sign.
    """

    first: int
    second: int
    score: str
    correlation: RankCorrelation
    equal: float
    distance: float


@dataclass(frozen=True)
class Repeats:
    """One judge asked several times about the same edits, by seeds or batch sizes.

    Attributes:
        judges: their numbers.
        edits: that all of them scored.
        equal: share of edits with the very same score each time.
        std: of an edit's scores, the mean over edits.
        largest: between two scores of one edit.
    """

    judges: list[int]
    score: str
    edits: int
    equal: float
    std: float
    largest: float


def same_orders(runs: Sequence[JudgeRun]) -> list[SameOrder]:
    """Every two judges that scored some of the same edits: each score that both have.

    Judges without a score in common are compared by their last one.
    """
    found = []
    for (i, a), (k, b) in combinations(enumerate(runs), 2):
        shared = _same_edits([a, b])
        if not shared:
            continue
        for mine, theirs in _names(a, b):
            values = [
                (a.verdicts[n].scores[mine], b.verdicts[n].scores[theirs])
                for n in shared
                if mine in a.verdicts[n].scores and theirs in b.verdicts[n].scores
            ]
            if values:
                label = mine if mine == theirs else f"{mine}, {theirs}"
                found.append(_same_order(i, k, label, values))
    return found


def _same_order(
    first: int, second: int, score: str, values: Sequence[tuple[float, float]]
) -> SameOrder:
    return SameOrder(
        first,
        second,
        score,
        correlate([x for x, _ in values], [y for _, y in values]),
        mean(x == y for x, y in values),
        mean(abs(x - y) for x, y in values),
    )


def _names(a: JudgeRun, b: JudgeRun) -> list[tuple[str, str]]:
    ours, theirs = _score_names(a), _score_names(b)
    shared = [(name, name) for name in ours if name in theirs]
    return shared or [(ours[-1], theirs[-1])]


def _score_names(run: JudgeRun) -> list[str]:
    return list(dict.fromkeys(n for verdict in run.verdicts.values() for n in verdict.scores))


def nothing_shared(runs: Sequence[JudgeRun], letters: Sequence[str]) -> str:
    """Why no two of the judges can be compared, and what would make it possible.

    Args:
        letters: what the judges are called.
    """
    if len(runs) == 1:
        return (
            f"{letters[0]} is the only judge: nothing to compare it with. Give --data that says "
            "what people preferred, or the results folder of another judge of the same edits."
        )
    by_both = [set(a.verdicts) & set(b.verdicts) for a, b in combinations(runs, 2)]
    most = max(map(len, by_both))
    return (
        f"{', '.join(letters[:-1])} and {letters[-1]} have no edit that is the same picture "
        f"(0 of {most}); score one run's edits again with another judge: --score-only "
        f"{runs[0].folder}."
    )


def _same_edits(runs: Sequence[JudgeRun]) -> list[str]:
    """Names of pairs whose edits are the same pictures in all; judges may be shown more."""
    names = set.intersection(*(set(run.verdicts) for run in runs))
    return [
        name
        for name in runs[0].verdicts
        if name in names and _are_same([run.verdicts[name].files for run in runs])
    ]


def _are_same(files: Sequence[frozenset[str]]) -> bool:
    least = min(files, key=len)
    return bool(least) and all(least <= seen for seen in files)


def repeats(runs: Sequence[JudgeRun]) -> list[Repeats]:
    """Each judge that several of the folders have."""
    by_judge: dict[tuple[str, str, str], list[int]] = {}
    for number, run in enumerate(runs):
        by = run.judged_by
        by_judge.setdefault((by.judge, by.model, by.prompt_hash), []).append(number)
    found = []
    for numbers in by_judge.values():
        mine = [runs[number] for number in numbers]
        shared = _same_edits(mine) if len(mine) > 1 else []
        if shared:
            found += [_repeats(numbers, name, mine, shared) for name in _score_names(mine[0])]
    return [repeat for repeat in found if repeat.edits]


def _repeats(
    numbers: list[int], score: str, runs: Sequence[JudgeRun], shared: Sequence[str]
) -> Repeats:
    told = [[run.verdicts[name].scores.get(score) for run in runs] for name in shared]
    values = [[v for v in row if v is not None] for row in told if None not in row]
    if not values:
        return Repeats(numbers, score, 0, 0.0, 0.0, 0.0)
    return Repeats(
        numbers,
        score,
        len(values),
        mean(len(set(row)) == 1 for row in values),
        mean(map(pstdev, values)),
        max(max(row) - min(row) for row in values),
    )
