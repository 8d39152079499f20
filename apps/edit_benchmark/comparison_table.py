"""A comparison of runs, on the terminal and on a page."""

from collections.abc import Sequence

from apps.edit_benchmark.compare import Comparison, ComparisonLine, Difference
from apps.edit_benchmark.plain_table import (
    NONE,
    Row,
    letters_of,
    part_cell,
    print_note,
    print_table,
)
from apps.edit_benchmark.score_names import decimals, meaning
from apps.edit_benchmark.significance import LEVEL
from apps.edit_benchmark.statistics import Interval
from apps.gallery.two_runs import ComparisonTable
from core.names import counted

MINUS = "\N{MINUS SIGN}"


def print_comparison(comparison: Comparison) -> None:
    """Print means and paired differences, which of these are real, and how the edits were made."""
    parts = any(line.language is not None for line in comparison.lines)
    letters, digits = letters_of(len(comparison.runs)), decimals(comparison.score)
    rows = [
        Row(
            line.category,
            [
                *([part_cell(line.language, line.subset)] if parts else []),
                str(line.pairs),
                *(f"{value:.{digits}f}" for value in line.means),
                *(cell for d in line.differences for cell in _cells(d.interval, digits)),
            ],
        )
        for line in comparison.lines
    ]
    pairs = [_between(d, letters) for d in comparison.lines[-1].differences]
    columns = ["pairs", *letters, *(column for pair in pairs for column in (pair, "95 %"))]
    print_table(["category", *(["language"] if parts else [])], columns, rows)
    for note in notes_on(comparison):
        print_note(note)


def notes_on(comparison: Comparison) -> list[str]:
    """By what runs are compared, which differences are real, and how runs were made and judged."""
    letters, digits = letters_of(len(comparison.runs)), decimals(comparison.score)
    notes = [_compared_by(comparison), _real("overall", comparison.overalls, letters, digits)]
    if len(comparison.categories) > 1:
        notes.append(_real("in a category", comparison.categories, letters, digits))
    if any(d.interval.low is None for line in comparison.lines for d in line.differences):
        notes.append(
            f"{NONE}: a category with a single pair has no interval, and neither has overall then."
        )
    if comparison.without_all:
        shared = "both" if len(letters) == 2 else "all runs"
        left_out = counted(comparison.without_all, "pair")
        notes.append(f"Left out: {left_out} without a score in {shared}.")
    computed = dict.fromkeys(
        f"{', '.join(run.judged_by.libraries)}, batches of {run.judged_by.batch_size}"
        for run in comparison.runs
        if run.judged_by.libraries
    )
    if len(computed) > 1:
        ways = "; ".join(computed)
        notes.append(f"The judge was computed in ways that may move a score a little: {ways}.")
    made = [run.edited_by for run in comparison.runs]
    if len(set(made)) == 1:
        return [*notes, f"{', '.join(letters[:-1])} and {letters[-1]} edited by: {made[0]}"]
    return [*notes, *(f"{x} edited by: {by}" for x, by in zip(letters, made, strict=True))]


def _compared_by(comparison: Comparison) -> str:
    """The score, what it means where that is known, and who gave it."""
    said = meaning(comparison.score, comparison.names)
    score = f"{comparison.score} ({said})" if said else comparison.score
    return f"Compared by {score}, as judged by {comparison.runs[0].judged_by.described}."


def _real(what: str, lines: Sequence[ComparisonLine], letters: Sequence[str], digits: int) -> str:
    """Which differences are real, and of how many."""
    several = len(lines) > 1
    told = [
        (d.is_real, _told(f"{line.name} " if several else "", d, letters, digits))
        for line in lines
        for d in line.differences
    ]
    real, open_ones = (
        [words for is_real, words in told if is_real is kind] for kind in (True, False)
    )
    test = f"paired randomisation test, p < {LEVEL}"
    if len(told) > 1:
        test += f" with Holm's correction for {len(told)} comparisons"
    says = f"Real {what} ({test}): {'; '.join(real) or 'none'}."
    if real and open_ones:
        says += f" Not shown to be real: {'; '.join(open_ones)}."
    return says


def _told(name: str, difference: Difference, letters: Sequence[str], digits: int) -> str:
    return (
        f"{name}{_between(difference, letters)} {difference.interval.mean:+.{digits}f} "
        f"(p = {difference.adjusted:.2g})"
    )


def _between(difference: Difference, letters: Sequence[str]) -> str:
    return f"{letters[difference.later]} - {letters[difference.earlier]}"


def _cells(interval: Interval, digits: int) -> list[str]:
    return [f"{interval.mean:+.{digits}f}", _range(interval, digits)]


def _range(interval: Interval, digits: int) -> str:
    if interval.low is None or interval.high is None:
        return NONE
    return f"{interval.low:+.{digits}f} to {interval.high:+.{digits}f}"


def comparison_page(comparison: Comparison) -> ComparisonTable:
    """The comparison as a page shows it."""
    letters, digits = letters_of(len(comparison.runs)), decimals(comparison.score)
    pairs = [_between(d, letters) for d in comparison.lines[-1].differences]
    columns = ["Category", "Pairs", *letters]
    columns += [column for pair in pairs for column in (pair, "95 %", "p (Holm)")]
    rows = [
        [
            line.name,
            str(line.pairs),
            *(f"{value:.{digits}f}" for value in line.means),
            *(
                cell
                for d in line.differences
                for cell in (*_cells(d.interval, digits), f"{d.adjusted:.2g}")
            ),
        ]
        for line in comparison.lines
    ]
    notes = notes_on(comparison)
    if len(letters) > 2:
        named = (f"{x}: {run.name}" for x, run in zip(letters, comparison.runs, strict=True))
        notes = [f"{', '.join(named)}. Pictures are shown of A and B.", *notes]
    first = comparison.overalls[-1].differences[0]
    says = f"{comparison.score}: {pairs[0]} {first.interval.mean:+.{digits}f} (95 %: "
    sure = "real" if first.is_real else "not shown to be real"
    says += f"{_range(first.interval, digits)}, {sure})"
    shown = [column.replace(" - ", f" {MINUS} ") for column in columns]
    return ComparisonTable(shown, rows, says.replace(" - ", f" {MINUS} ", 1), notes)
