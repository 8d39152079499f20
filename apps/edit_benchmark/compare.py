"""Two runs of the same pairs: which edited better, by how much, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from apps.edit_benchmark.parts import Part, Subset, parts_of
from apps.edit_benchmark.records import Record, categories_of, read_records
from apps.edit_benchmark.statistics import Interval, bootstrap_mean, bootstrap_mean_of_means
from apps.edit_benchmark.summary import OVERALL, read_makers
from apps.gallery.two_runs import ComparisonTable
from core.errors import InputError


@dataclass(frozen=True)
class ComparisonLine:
    """One category, or `overall` all of them.

    Attributes:
        difference: B - A over pairs that both have scored.
        language, subset: given where the data has parts.
    """

    category: str
    pairs: int
    mean_a: float
    mean_b: float
    difference: Interval
    language: str | None = None
    subset: Subset | None = None


@dataclass(frozen=True)
class Comparison:
    """All categories, then `overall` (the mean over categories) of each part of the data.

    `edited_a` and `edited_b` say how the edits were made.
    """

    lines: list[ComparisonLine]
    without_both: int
    edited_a: str
    edited_b: str


def compare(a: Path, b: Path, score: str, samples: int) -> Comparison:
    """Paired differences of two result folders.

    Raises:
        InputError: no results, different judges, or no pair in common.
    """
    made_a, made_b = read_makers(a), read_makers(b)
    judged_a, judged_b = made_a.judged_by, made_b.judged_by
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
    everywhere = len(records_a.keys() | records_b.keys())
    return Comparison(
        _lines(scored, score, samples),
        everywhere - len(scored),
        made_a.edited_by,
        made_b.edited_by,
    )


def comparison_table(comparison: Comparison, score: str) -> ComparisonTable:
    """The comparison as a page shows it."""
    overall = comparison.lines[-1].difference
    says = f"{score}: B − A {overall.mean:+.2f} (95 %: {overall.low:+.2f} to {overall.high:+.2f})"
    rows = [
        [
            " ".join(filter(None, (line.category, line.language, line.subset))),
            str(line.pairs),
            f"{line.mean_a:.2f}",
            f"{line.mean_b:.2f}",
            f"{line.difference.mean:+.2f}",
            f"{line.difference.low:+.2f} to {line.difference.high:+.2f}",
        ]
        for line in comparison.lines
    ]
    notes = [f"A edited by: {comparison.edited_a}", f"B edited by: {comparison.edited_b}"]
    if comparison.without_both:
        notes.insert(0, f"{comparison.without_both} pairs without a score in both are left out.")
    return ComparisonTable(["Category", "Pairs", "A", "B", "B − A", "95 %"], rows, says, notes)


def _key(record: Record) -> tuple[str, str]:
    return (record.category, record.pair_id)


def _has(record: Record, score: str) -> bool:
    return record.scores is not None and score in record.scores


Pairs = Sequence[tuple[Record, Record]]


def _lines(scored: Pairs, score: str, samples: int) -> list[ComparisonLine]:
    """Lines of the comparison: per category, then overall; each language by itself."""
    parts = _parts([x for x, _ in scored])
    lines, overalls = [], []
    whole: list[Part | None] = [None]
    for part in parts or whole:
        pairs = [(x, y) for x, y in scored if part is None or part.holds(x)]
        if not pairs:
            continue
        language, subset = (part.language, part.subset) if part else (None, None)
        groups = {
            category: [(x, y) for x, y in pairs if x.category == category]
            for category in categories_of([x for x, _ in pairs])
        }
        if subset != "intersection":
            found = (_line(category, g, score, samples) for category, g in groups.items())
            lines += [replace(line, language=language) for line in found]
        by_name = [group for _, group in sorted(groups.items())]
        overall = _overall(by_name, score, samples)
        overalls.append(replace(overall, language=language, subset=subset))
    return [*lines, *overalls]


def _parts(records: Sequence[Record]) -> list[Part]:
    """Parts of the records; a mark that all pairs have, as of earlier versions, counts as none."""
    if all(r.intersection_exist is not False for r in records):
        records = [replace(r, intersection_exist=None) for r in records]
    return parts_of(records)


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
        OVERALL,
        total,
        mean(m[0] for m in means),
        mean(m[1] for m in means),
        difference,
    )


def _values(pairs: Pairs, score: str) -> tuple[list[float], list[float]]:
    return (
        [x.scores[score] for x, _ in pairs if x.scores],
        [y.scores[score] for _, y in pairs if y.scores],
    )


def _differences(pairs: Pairs, score: str) -> list[float]:
    before, after = _values(pairs, score)
    return [y - x for x, y in zip(before, after, strict=True)]
