"""What a run prints at its end: the table of its scores, and that of several judges."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from apps.edit_benchmark.parts import Subset
from apps.edit_benchmark.plain_table import (
    NONE,
    Row,
    letters_of,
    part_cell,
    print_note,
    print_table,
)
from apps.edit_benchmark.score_names import decimals, explain
from apps.edit_benchmark.summary import (
    CategoryLine,
    Figures,
    JudgeFigures,
    OverallLine,
    ScoreLine,
    Summary,
)
from apps.edit_benchmark.usage import usage_line
from core.errors import one_line
from core.paths import as_text

NOTE = (
    "overall: mean over the categories. 95 %: bootstrap over pairs. "
    f"{NONE}: one value, or a category of one."
)

DRIFT = "drift %: how far edits lie beside their sources, of the diagonal; how much is zoomed."


def print_summary(summary: Summary, folder: Path) -> None:
    """Print where everything lies, who edited, who judged, the scores, and what they mean.

    The scores stand per category and overall, per language and subset where the data has them.
    The overall score's spread stands at the end: its median, deviation and 95 % interval.
    Pairs that were not tried have a column if there are any, and so have the share of unparsed
    ones, categories without a score, and the score tokens' mean probability, over all calls, for
    judges that read it. Several judges of the same edits follow side by side.
    """
    print(one_line(f"edits, verdicts and results: {as_text(folder)}"))
    if summary.edited_by is not None:
        print(one_line(f"editor: {summary.edited_by.line}"))
    judge = summary.judged_by
    print(one_line(f"judge: {judge.described}{judge.computed}"))
    if judge.usage is not None:
        print(f"judge's server: {usage_line(judge.usage)}")
    if not any(judge.overall.scored for judge in (summary, *summary.judges)):
        print(_nothing_scored(summary.overall))
        return
    _print_figures(summary)
    drifts = [DRIFT] if summary.overall.drift else []
    for note in (*explain(summary.names), NOTE, *drifts):
        print_note(note)
    if summary.best_of is not None:
        print_note(_best_of(summary.best_of))
    if len(summary.judges) > 1:
        _print_judges(summary)


def _nothing_scored(line: OverallLine) -> str:
    """What became of the pairs, in place of a table without a score."""
    counts = {"failed": line.failed, "unparsed": line.unparsed, "not tried": line.not_tried}
    ends = ", ".join(f"{count} {end}" for end, count in counts.items() if count)
    return f"no pair has a score ({ends or 'no pairs'}); results.jsonl says why"


def _best_of(found: dict[str, Any]) -> str:
    """What the choice among several edits gained."""
    line = f"best of {found['edits_per_pair']} edits of each pair, chosen by this judge"
    if found["best"] is None:
        return line
    means = f"first {found['first']:.2f}, all {found['all']:.2f}, best {found['best']:.2f}"
    return f"{line}: {means} on average over {found['pairs_with_all_scores']} pairs"


def _print_figures(summary: Figures) -> None:
    last = summary.names[-1]
    spread = [f"{last} median", f"{last} std", f"{last} 95 %"]
    lines = [*summary.categories, *summary.overalls]
    interrupted = summary.overall.not_tried > 0
    unread = summary.overall.unparsed > 0
    counts = ["n", "scored", *(["not tried"] if interrupted else []), "failed", "unparsed"]
    counts += ["unparsed %"] if unread else []
    parts, uncovered = bool(summary.parts), any(map(_covered, lines))
    read_mass = bool(summary.overall.mass)
    drifts = bool(summary.overall.drift)
    rows = [
        Row(
            line.category,
            [
                *([part_cell(line.language, _subset(line))] if parts else []),
                *_counts(line, interrupted, unread),
                *_scores(line, summary.names),
                *([_covered(line)] if uncovered else []),
                *([_mass(line)] if read_mass else []),
                *([_drift(line)] if drifts else []),
            ],
        )
        for line in lines
    ]
    figures = [*counts, *summary.names, *spread, *(["categories"] if uncovered else [])]
    figures += ["mass"] if read_mass else []
    figures += ["drift %"] if drifts else []
    print_table(["category", *(["language"] if parts else [])], figures, rows)


def _print_judges(summary: Summary) -> None:
    """The last score of each judge, category by category, and how alike they order the edits."""
    letters = letters_of(len(summary.judges))
    print("\njudges side by side:")
    by_place = [
        {_place(line): line for line in [*judge.categories, *judge.overalls]}
        for judge in summary.judges
    ]
    lines = [*summary.categories, *summary.overalls]
    parts = bool(summary.parts)
    rows = [
        Row(
            line.category,
            [
                *([part_cell(line.language, _subset(line))] if parts else []),
                *(
                    cell
                    for judge, found in zip(summary.judges, by_place, strict=True)
                    for cell in _beside(found.get(_place(line)), judge.names[-1])
                ),
            ],
        )
        for line in lines
    ]
    figures = [
        column
        for letter, judge in zip(letters, summary.judges, strict=True)
        for column in (f"{letter} scored", f"{letter} {judge.names[-1]}", f"{letter} 95 %")
    ]
    print_table(["category", *(["language"] if parts else [])], figures, rows)
    for letter, judge in zip(letters, summary.judges, strict=True):
        by = judge.judged_by
        print(one_line(f"{letter}: {by.described}{by.computed}{_unread(judge)}"))
        if isinstance(judge, JudgeFigures) and judge.same_order.spearman is not None:
            order = judge.same_order
            print(
                f"rank correlation with {by.judge}: {order.spearman:.2f} (Spearman), "
                f"{order.kendall:.2f} (Kendall's tau-b), {order.n} edits"
            )


def _place(line: CategoryLine) -> tuple[bool, str, str | None, Subset | None]:
    return (isinstance(line, OverallLine), line.category, line.language, _subset(line))


def _beside(line: CategoryLine | None, name: str) -> list[str]:
    score = line.scores.get(name) if line is not None else None
    scored = NONE if line is None else str(line.scored)
    return [scored, _figure(None if score is None else score.mean, name), _interval(score, name)]


def _unread(judge: Figures) -> str:
    overall = judge.overall
    return f", {_share(overall)} % unparsed" if overall.unparsed else ""


def _covered(line: CategoryLine) -> str:
    """How many categories an overall score is over, where that is not all of them."""
    if not isinstance(line, OverallLine) or line.over.scored == line.over.of:
        return ""
    return f"over {line.over.scored} of {line.over.of}"


def _subset(line: CategoryLine) -> Subset | None:
    return line.subset if isinstance(line, OverallLine) else None


def _counts(line: CategoryLine, interrupted: bool, unread: bool) -> list[str]:
    counts = [line.n, line.scored, *([line.not_tried] if interrupted else [])]
    counts += [line.failed, line.unparsed]
    return [*map(str, counts), *([_share(line)] if unread else [])]


def _share(line: CategoryLine) -> str:
    """How many percent of the judge's answers could not be read."""
    answers = line.scored + line.unparsed
    return f"{100 * line.unparsed / answers:.0f}" if answers else NONE


def _scores(line: CategoryLine, names: Sequence[str]) -> list[str]:
    scores = [line.scores.get(name) for name in names]
    means = [
        _figure(None if score is None else score.mean, name)
        for score, name in zip(scores, names, strict=True)
    ]
    last, name = scores[-1], names[-1]
    spread = [NONE, NONE]
    if last is not None:
        spread = [_figure(last.median, name), _figure(last.std, name)]
    return [*means, *spread, _interval(last, name)]


def _figure(value: float | None, name: str) -> str:
    return NONE if value is None else f"{value:.{decimals(name)}f}"


def _interval(score: ScoreLine | None, name: str) -> str:
    if score is None or score.low is None or score.high is None:
        return NONE
    return f"{_figure(score.low, name)} to {_figure(score.high, name)}"


def _drift(line: CategoryLine) -> str:
    """How far edits lie beside their sources: shift, and zoom either way."""
    return f"{line.drift['shift']:.1f} {line.drift['zoom']:.1f}" if line.drift else NONE


def _mass(line: CategoryLine) -> str:
    return f"{mean(line.mass.values()):.2g}" if line.mass else NONE
