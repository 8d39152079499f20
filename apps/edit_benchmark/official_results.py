"""The official statistic of the data at hand, over the records of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.edit_benchmark.official_statistic import STATISTICS, Judged, Statistic
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.records import Outcome, Record
from apps.edit_benchmark.summary import OtherJudge

UNREAD: Outcome = "unparsed"
OVERALL = {"O", "overall", "score", "average"}  # of a judge's calls together: no rating of its own


def official_table(
    pairs: Sequence[Pair], records: Sequence[Record], others: Sequence[OtherJudge] = ()
) -> dict[str, Any] | None:
    """The figures that the benchmark's own script computes; None where the data has no such script.

    Args:
        records: of the pairs, in their order.
        others: judges of the same edits, for a statistic that puts several together.
    """
    statistic = statistic_of(pairs)
    if statistic is None:
        return None
    judged = judged_by(statistic, pairs, records, others)
    table: dict[str, Any] = {"script": statistic.script}
    if statistic.joins_judges:
        givers = _givers(statistic, pairs, records, others)
        table |= {"from_other_judges": givers} if givers else {}
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
    statistic: Statistic,
    pairs: Sequence[Pair],
    records: Sequence[Record],
    others: Sequence[OtherJudge] = (),
) -> list[Judged]:
    """Pairs with their scores under the statistic's names.

    What several of the other judges give is nobody's, as it is not known whose is meant.
    """
    scores = [_scores(statistic, pair, record) for pair, record in zip(pairs, records, strict=True)]
    gives = any(scores)  # what a judge of another protocol said is no answer to its questions
    unread = [gives and record.outcome == UNREAD for record in records]
    givers = _givers(statistic, pairs, records, others) if statistic.joins_judges else {}
    for other in others:
        wanted = {name for name, judges in givers.items() if judges == [other.judged_by.judge]}
        for i, (pair, record) in enumerate(zip(pairs, other.records, strict=True)):
            found = _scores(statistic, pair, record) if wanted and scores[i] is None else None
            scores[i] = found if found and found.keys() <= wanted else scores[i]
            unread[i] |= bool(wanted) and record.outcome == UNREAD
    return [
        Judged(
            pair,
            found,
            record.source_images[0] if record.source_images else "",
            record.edited_image or "",
            unread=not_read and found is None,
        )
        for pair, record, found, not_read in zip(pairs, records, scores, unread, strict=True)
    ]


def _givers(
    statistic: Statistic,
    pairs: Sequence[Pair],
    records: Sequence[Record],
    others: Sequence[OtherJudge],
) -> dict[str, list[str]]:
    """Which of the other judges give what the run's own does not, by the statistic's names."""
    own = _given(statistic, pairs, records)
    givers: dict[str, list[str]] = {}
    for other in others:
        for name in sorted(_given(statistic, pairs, other.records) - own):
            givers.setdefault(name, []).append(other.judged_by.judge)
    return givers


def _given(statistic: Statistic, pairs: Sequence[Pair], records: Sequence[Record]) -> set[str]:
    both = zip(pairs, records, strict=True)
    return {name for pair, record in both for name in _scores(statistic, pair, record) or ()}


def _scores(statistic: Statistic, pair: Pair, record: Record) -> Mapping[str, float] | None:
    return None if record.scores is None else statistic.scores_of(pair, _ratings(record))


def _ratings(record: Record) -> Mapping[str, float]:
    """The ratings of a record: of its calls, or of their parts where one call asks for all."""
    scores = record.scores or {}
    calls = {name: value for name, value in scores.items() if name not in OVERALL}
    parts = list((record.parts or {}).values())
    if not calls and len(parts) == 1:
        return parts[0]
    return calls or scores
