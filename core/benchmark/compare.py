"""Two runs of the same pairs: which edited better, by how much, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from core.benchmark.records import Record, categories_of, read_records
from core.benchmark.statistics import Interval, bootstrap_mean, bootstrap_mean_of_means
from core.benchmark.summary import OVERALL, read_judged_by
from core.errors import InputError


@dataclass(frozen=True)
class ComparisonLine:
    """One category; `difference` is B - A over pairs that both have scored."""

    category: str
    pairs: int
    mean_a: float
    mean_b: float
    difference: Interval


@dataclass(frozen=True)
class Comparison:
    """All categories, `overall` (the mean over categories) last."""

    lines: list[ComparisonLine]
    without_both: int


def compare(a: Path, b: Path, score: str, samples: int) -> Comparison:
    """Paired differences of two result folders.

    Raises:
        InputError: no results, different judges, or no pair in common.
    """
    judged_a, judged_b = read_judged_by(a), read_judged_by(b)
    if judged_a.identity != judged_b.identity:
        raise InputError(
            f"{a} was judged by {judged_a.identity}, {b} by {judged_b.identity}: scores of "
            "different judges cannot be compared."
        )
    records_a = {_key(r): r for r in read_records(a)}
    records_b = {_key(r): r for r in read_records(b)}
    both = [
        (r, records_b[k])
        for k, r in records_a.items()
        if k in records_b and r.instruction == records_b[k].instruction
    ]
    if not both:
        raise InputError(f"{a} and {b} have no pair in common.")
    scored = [(x, y) for x, y in both if _has(x, score) and _has(y, score)]
    if not scored:
        raise InputError(f"{a} and {b} have no pair that both have scored.")
    groups = {
        category: [(x, y) for x, y in scored if x.category == category]
        for category in categories_of([x for x, _ in scored])
    }
    lines = [_line(category, pairs, score, samples) for category, pairs in groups.items()]
    everywhere = len(records_a.keys() | records_b.keys())
    return Comparison(
        [*lines, _overall(list(groups.values()), score, samples)], everywhere - len(scored)
    )


def _key(record: Record) -> tuple[str, str]:
    return (record.category, record.pair_id)


def _has(record: Record, score: str) -> bool:
    return record.scores is not None and score in record.scores


Pairs = Sequence[tuple[Record, Record]]


def _line(category: str, pairs: Pairs, score: str, samples: int) -> ComparisonLine:
    before, after = _values(pairs, score)
    difference = bootstrap_mean(_differences(pairs, score), samples, seed=0)
    assert difference is not None
    return ComparisonLine(category, len(pairs), mean(before), mean(after), difference)


def _overall(groups: Sequence[Pairs], score: str, samples: int) -> ComparisonLine:
    means = [[mean(values) for values in _values(pairs, score)] for pairs in groups]
    difference = bootstrap_mean_of_means([_differences(g, score) for g in groups], samples, seed=0)
    assert difference is not None
    total = sum(len(pairs) for pairs in groups)
    return ComparisonLine(
        OVERALL, total, mean(m[0] for m in means), mean(m[1] for m in means), difference
    )


def _values(pairs: Pairs, score: str) -> tuple[list[float], list[float]]:
    return (
        [x.scores[score] for x, _ in pairs if x.scores],
        [y.scores[score] for _, y in pairs if y.scores],
    )


def _differences(pairs: Pairs, score: str) -> list[float]:
    before, after = _values(pairs, score)
    return [y - x for x, y in zip(before, after, strict=True)]
