"""The benchmark's result: counts and scores per category and overall, with intervals.

As in VIEScore and GEdit-Bench, a category's score is the mean over its scored pairs, and the
overall score the mean over the categories. Pairs without a score are counted beside it and
never enter a mean.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

from core.benchmark.records import Record, categories_of
from core.benchmark.statistics import bootstrap_mean, bootstrap_mean_of_means
from core.errors import InputError

FILE_NAME = "summary.json"
OVERALL = "overall"


@dataclass(frozen=True)
class ScoreLine:
    """One score of one category: over its pairs; overall: over the categories' means."""

    mean: float
    median: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class CategoryLine:
    """One row of the table. `failed`: no edit, or no verdict; `unparsed`: a verdict out of form.

    `mass`: by call the mean probability of the score tokens, for judges of type vlm_logits, over
    all verdicts, also those that have no score because of it.
    """

    category: str
    n: int
    scored: int
    failed: int
    unparsed: int
    not_tried: int
    scores: dict[str, ScoreLine]
    mass: dict[str, float]


@dataclass(frozen=True)
class JudgedBy:
    """The judge of a table, with its settings that decide scores; `seed` is the run's."""

    judge: str
    model: str
    prompt_hash: str
    settings: dict[str, Any]
    seed: int

    @property
    def identity(self) -> str:
        """The same for tables that can be compared."""
        settings = [f"{k} {v}" for k, v in self.settings.items() if v is not None and k != "type"]
        return f"{self.judge} ({', '.join([self.model, f'prompts {self.prompt_hash}', *settings])})"


@dataclass(frozen=True)
class Summary:
    judged_by: JudgedBy
    editor: str
    names: list[str]
    categories: list[CategoryLine]
    overall: CategoryLine
    rank_correlations: dict[str, float]


def summarise(
    records: Sequence[Record],
    names: Sequence[str],
    judged_by: JudgedBy,
    editor: str,
    samples: int,
    rank_correlations: dict[str, float] | None = None,
) -> Summary:
    """The table of a run.

    Args:
        names: of the scores, in the order of the columns.
        samples: resamplings behind an interval.
    """
    groups = {c: [r for r in records if r.category == c] for c in categories_of(records)}
    rows = [_line(c, group, names, samples) for c, group in groups.items()]
    return Summary(
        judged_by,
        editor,
        list(names),
        rows,
        _overall(records, list(groups.values()), names, samples),
        rank_correlations or {},
    )


def _counts(records: Sequence[Record]) -> dict[str, int]:
    def count(*outcomes: str) -> int:
        return sum(r.outcome in outcomes for r in records)

    return {
        "n": len(records),
        "scored": count("scored"),
        "failed": count("edit_failed", "score_failed"),
        "unparsed": count("unparsed"),
        "not_tried": count("not_tried"),
    }


def values_of(records: Sequence[Record], name: str) -> list[float]:
    """One score of all pairs that have it."""
    return [r.scores[name] for r in records if r.scores is not None and name in r.scores]


def _line(
    category: str, records: Sequence[Record], names: Sequence[str], samples: int
) -> CategoryLine:
    scores = {}
    for name in names:
        values = values_of(records, name)
        interval = bootstrap_mean(values, samples, seed=0)
        if interval is not None:
            middle, spread = median(values), pstdev(values)
            scores[name] = ScoreLine(interval.mean, middle, spread, interval.low, interval.high)
    return CategoryLine(
        category=category, scores=scores, mass=_mean_mass(records), **_counts(records)
    )


def _overall(
    records: Sequence[Record],
    groups: Sequence[Sequence[Record]],
    names: Sequence[str],
    samples: int,
) -> CategoryLine:
    scores = {}
    for name in names:
        by_group = [values_of(group, name) for group in groups]
        interval = bootstrap_mean_of_means(by_group, samples, seed=0)
        if interval is not None:
            means = [mean(values) for values in by_group if values]
            scores[name] = ScoreLine(
                interval.mean, median(means), pstdev(means), interval.low, interval.high
            )
    return CategoryLine(
        category=OVERALL, scores=scores, mass=_mean_mass(records), **_counts(records)
    )


def _mean_mass(records: Sequence[Record]) -> dict[str, float]:
    """Over all verdicts, by call; overall it is no mean of means, as it is no score."""
    masses: dict[str, list[float]] = {}
    for record in records:
        for name, mass in (record.mass or {}).items():
            masses.setdefault(name, []).append(mass)
    return {name: mean(values) for name, values in masses.items()}


def to_json(summary: Summary) -> str:
    """summary.json."""
    return json.dumps(asdict(summary), ensure_ascii=False, indent=1) + "\n"


def read_judged_by(folder: Path) -> JudgedBy:
    """What judged the results in a folder.

    Raises:
        InputError: no summary there, or a damaged one.
    """
    file = folder / FILE_NAME
    try:
        data: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return JudgedBy(**data["judged_by"])
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: not the summary of a benchmark ({error}).") from None
