"""Tables for the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from core.benchmark.compare import Comparison
from core.benchmark.summary import CategoryLine, Summary

NONE = "-"


def print_summary(summary: Summary) -> None:
    """Counts and mean scores per category, the overall score's interval at the end."""
    table = _table(["category", "n", "failed", "unparsed", *summary.names, "95 % of the last"])
    for line in [*summary.categories, summary.overall]:
        if line is summary.overall:
            table.add_section()
        table.add_row(*_cells(line, summary.names))
    _print(table)
    for judge, rho in summary.rank_correlations.items():
        print(f"rank correlation with {judge}: {rho:.2f}")


def _cells(line: CategoryLine, names: Sequence[str]) -> list[str]:
    scores = [line.scores.get(name) for name in names]
    last = scores[-1]
    return [
        line.category,
        str(line.n),
        str(line.failed),
        str(line.unparsed),
        *(NONE if s is None else f"{s.mean:.2f}" for s in scores),
        NONE if last is None else f"{last.low:.2f} to {last.high:.2f}",
    ]


def print_comparison(comparison: Comparison) -> None:
    """Paired differences per category."""
    table = _table(["category", "pairs", "A", "B", "B - A", "95 %"])
    for line in comparison.lines:
        if line is comparison.lines[-1]:
            table.add_section()
        table.add_row(
            line.category,
            str(line.pairs),
            f"{line.mean_a:.2f}",
            f"{line.mean_b:.2f}",
            f"{line.difference.mean:+.2f}",
            f"{line.difference.low:+.2f} to {line.difference.high:+.2f}",
        )
    _print(table)
    left_out = comparison.without_both
    if left_out:
        print(f"{left_out} pairs without a score in both are left out.")


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    return table


def _print(table: Table) -> None:
    Console(width=None if Console().is_terminal else 100).print(table)
