"""Tables for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.benchmark.compare import Comparison
from core.benchmark.summary import CategoryLine, Summary
from core.errors import one_line
from core.paths import as_text

NONE = "-"


def print_summary(summary: Summary, folder: Path) -> None:
    """Where everything lies, who judged, and last the scores per category and overall.

    The overall score's spread stands at the end: its median, deviation and 95 % interval.
    Pairs that were not tried have a column if there are any.
    """
    last = summary.names[-1]
    print(one_line(f"edits, verdicts and results: {as_text(folder)}"))
    print(one_line(f"judge: {summary.judged_by.identity}, seed {summary.judged_by.seed}"))
    for judge, rho in summary.rank_correlations.items():
        print(f"rank correlation with {judge}: {rho:.2f}")
    spread = [f"{last} median", f"{last} std", f"{last} 95 %"]
    interrupted = summary.overall.not_tried > 0
    counts = ["n", *(["not tried"] if interrupted else []), "failed", "unparsed"]
    table = _table(["category", *counts, *summary.names, *spread])
    for line in [*summary.categories, summary.overall]:
        if line is summary.overall:
            table.add_section()
        table.add_row(_plain(line.category), *_cells(line, summary.names, interrupted))
    _print(table)


def _cells(line: CategoryLine, names: Sequence[str], interrupted: bool) -> list[str]:
    counts = [line.n, *([line.not_tried] if interrupted else []), line.failed, line.unparsed]
    scores = [line.scores.get(name) for name in names]
    means = [NONE if s is None else f"{s.mean:.2f}" for s in scores]
    last = scores[-1]
    spread = [NONE] * 3
    if last is not None:
        spread = [f"{last.median:.2f}", f"{last.std:.2f}", f"{last.low:.2f} to {last.high:.2f}"]
    return [*map(str, counts), *means, *spread]


def print_comparison(comparison: Comparison) -> None:
    """Paired differences per category."""
    table = _table(["category", "pairs", "A", "B", "B - A", "95 %"])
    for line in comparison.lines:
        if line is comparison.lines[-1]:
            table.add_section()
        table.add_row(
            _plain(line.category),
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


def _plain(text: str) -> Text:
    """`text` as it is, on one line: in a bare string Rich would read [brackets] as styles."""
    return Text(one_line(text))


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    return table


def _print(table: Table) -> None:
    Console(width=None if Console().is_terminal else 100).print(table)
