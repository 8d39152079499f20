"""The official statistic of the data at hand, over the records of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.edit_benchmark.official_statistic import STATISTICS, Judged, Statistic
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.records import Record

OVERALL = {"O", "overall", "score", "average"}  # of a judge's calls together: no rating of its own


def official_table(pairs: Sequence[Pair], records: Sequence[Record]) -> dict[str, Any] | None:
    """The figures that the benchmark's own script computes; None where the data has no such script.

    Args:
        records: of the pairs, in their order.
    """
    statistic = statistic_of(pairs)
    if statistic is None:
        return None
    judged = judged_by(statistic, pairs, records)
    table = {"script": statistic.script}
    if any(one.scores for one in judged) or not any(r.scores for r in records):
        return {**table, **statistic.table(judged)}
    given = next(r.scores for r in records if r.scores)
    needed = ", ".join(statistic.names) or "the ratings of its own questions"
    return {**table, "not_computed": f"It needs {needed}; the judge gives {', '.join(given)}."}


def statistic_of(pairs: Sequence[Pair]) -> Statistic | None:
    """The statistic of the data set that all pairs are from, if there is one."""
    names = {pair.data_set for pair in pairs}
    return next((STATISTICS[name] for name in STATISTICS if {name} == names), None)


def judged_by(
    statistic: Statistic, pairs: Sequence[Pair], records: Sequence[Record]
) -> list[Judged]:
    """Pairs with their scores under the statistic's names."""
    return [
        Judged(
            pair,
            None if record.scores is None else statistic.scores_of(pair, _ratings(record)),
            record.source_images[0] if record.source_images else "",
            record.edited_image or "",
        )
        for pair, record in zip(pairs, records, strict=True)
    ]


def _ratings(record: Record) -> Mapping[str, float]:
    """The ratings of a record: of its calls, or of their parts where one call asks for all."""
    scores = record.scores or {}
    calls = {name: value for name, value in scores.items() if name not in OVERALL}
    parts = list((record.parts or {}).values())
    if not calls and len(parts) == 1:
        return parts[0]
    return calls or scores
