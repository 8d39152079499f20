"""The report of `run_edit_benchmark.py agreement`: on the terminal, and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from apps.edit_benchmark.agreement.accuracy import ALL, MEAN, Accuracy, accuracies
from apps.edit_benchmark.agreement.orders import Repeats, SameOrder, repeats, same_orders
from apps.edit_benchmark.agreement.verdicts import JudgeRun
from apps.edit_benchmark.plain_table import (
    NONE,
    Row,
    letters_of,
    print_note,
    print_table,
)
from apps.edit_benchmark.preferences import Comparison
from apps.edit_benchmark.ranks import LEAST
from apps.edit_benchmark.statistics import Interval
from apps.edit_benchmark.summary import JudgedBy
from core.errors import one_line

UNDEFINED = (
    f"{NONE}: an order needs {LEAST} edits, and scores of each judge that are not all the same."
)


@dataclass(frozen=True)
class JudgeReport:
    """One judge of one folder; `accuracy` by dimension, without those that it has no score for."""

    folder: str
    judged_by: JudgedBy
    scored: int
    accuracy: dict[str, list[Accuracy]]


@dataclass(frozen=True)
class Agreement:
    """What was found.

    Attributes:
        judges: in the order of their letters.
        orders: of every two judges.
        repeats: of judges that several folders have.
        dimensions: by which people compared.
    """

    judges: list[JudgeReport]
    orders: list[SameOrder]
    repeats: list[Repeats]
    dimensions: list[str]

    @property
    def is_empty(self) -> bool:
        """Whether there is neither people's preference nor another judge to compare with."""
        return not (self.dimensions or self.orders or self.repeats)

    def as_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"


def agreement(
    runs: Sequence[JudgeRun],
    comparisons: Sequence[Comparison],
    chosen: Mapping[str, str],
    samples: int,
) -> Agreement:
    """Compare judges with people, with each other and with themselves.

    Args:
        chosen: the score of a dimension, where the user named one.
        samples: resamplings behind an interval.
    """
    dimensions = list(dict.fromkeys(c.dimension for c in comparisons))
    reports = []
    for run in runs:
        accuracy = {}
        for dimension in dimensions:
            scores = run.scores_for(dimension, chosen)
            if scores:
                asked = [c for c in comparisons if c.dimension == dimension]
                accuracy[dimension] = accuracies(asked, scores, samples)
        reports.append(JudgeReport(run.folder, run.judged_by, len(run.verdicts), accuracy))
    return Agreement(reports, same_orders(runs), repeats(runs), dimensions)


def print_agreement(found: Agreement) -> None:
    """Print what each judge is, and all tables."""
    letters = letters_of(len(found.judges))
    for letter, judge in zip(letters, found.judges, strict=True):
        by = judge.judged_by
        how = f"{by.described}{by.computed}" if by.model else by.judge  # without any verdict
        print(one_line(f"{letter}: {how}: {judge.scored} edits, {judge.folder}"))
    known = [d for d in found.dimensions if any(d in judge.accuracy for judge in found.judges)]
    for dimension in known:
        _print_accuracy(found, letters, dimension)
    if unknown := [d for d in found.dimensions if d not in known]:
        print(f"\nNo judge has a score for {', '.join(unknown)}; --score names one.")
    if known:
        _print_notes(found)
    if found.orders:
        print("\njudges with each other, over the edits that both scored:")
        _print_orders(found.orders, letters)
        if any(order.correlation.spearman is None for order in found.orders):
            print_note(UNDEFINED)
    if found.repeats:
        print("\none judge several times, over the edits that all scored:")
        _print_repeats(found.repeats, letters)


def _print_accuracy(found: Agreement, letters: Sequence[str], dimension: str) -> None:
    print(f"\npair accuracy, {dimension}:")
    shown = [
        (x, {row.task: row for row in judge.accuracy[dimension]})
        for x, judge in zip(letters, found.judges, strict=True)
        if dimension in judge.accuracy
    ]
    calibrated = any(row.epsilon is not None for _, rows in shown for row in rows.values())
    partial = any(row.unscored for _, rows in shown for row in rows.values())
    columns = ["n", *(["no score"] if partial else []), "accuracy", "95 %", "groups right"]
    columns += ["tie within"] if calibrated else []
    rows = [
        Row(task, [c for _, by in shown for c in _accuracy_cells(by[task], partial, calibrated)])
        for task in shown[0][1]
    ]
    print_table(["task"], [f"{x} {column}" for x, _ in shown for column in columns], rows)


def _accuracy_cells(row: Accuracy, partial: bool, calibrated: bool) -> list[str]:
    mean = NONE if row.accuracy is None else f"{row.accuracy.mean:.3f}"
    whole = f"{row.groups_right} of {row.groups}"
    cells = [str(row.comparisons), *([str(row.unscored)] if partial else []), mean]
    cells += [_range(row.accuracy), whole]
    return cells + ([NONE if row.epsilon is None else f"{row.epsilon:.3g}"] if calibrated else [])


def _range(interval: Interval | None) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return NONE
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _print_notes(found: Agreement) -> None:
    rows = [row for j in found.judges for table in j.accuracy.values() for row in table]
    notes = [
        f"{MEAN}: as EditScore reports it. {ALL}: as TIGER-Lab's EditReward-Bench does. groups "
        "right: in each of their comparisons. 95 %: bootstrap over groups.",
        "A judge that gives both candidates the same score is wrong, unless people call ties.",
    ]
    if any(row.epsilon is not None for row in rows):
        notes.append(
            "tie within: where people call ties, scores that differ by no more are one, too: the "
            "threshold with the highest accuracy (tie calibration, arXiv:2305.14324). Intervals "
            "leave it as it is."
        )
    if any(row.unscored for row in rows):
        notes.append("no score: comparisons of a candidate without one; they do not count.")
    for note in notes:
        print_note(note)


def _print_orders(orders: Sequence[SameOrder], letters: Sequence[str]) -> None:
    rows = [
        Row(
            f"{letters[order.first]}, {letters[order.second]}: {order.score}",
            [
                str(order.correlation.n),
                _figure(order.correlation.spearman),
                _figure(order.correlation.kendall),
                f"{100 * order.equal:.0f}",
                f"{order.distance:.2f}",
            ],
        )
        for order in orders
    ]
    print_table(["judges"], ["n", "Spearman", "tau-b", "equal %", "mean distance"], rows)


def _print_repeats(found: Sequence[Repeats], letters: Sequence[str]) -> None:
    rows = [
        Row(
            f"{', '.join(letters[number] for number in repeat.judges)}: {repeat.score}",
            [
                str(repeat.edits),
                f"{100 * repeat.equal:.0f}",
                f"{repeat.std:.3f}",
                f"{repeat.largest:.2f}",
            ],
        )
        for repeat in found
    ]
    print_table(["judge"], ["n", "equal %", "std of an edit", "largest difference"], rows)


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
