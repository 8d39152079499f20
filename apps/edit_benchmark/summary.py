"""The benchmark's result: counts and scores per category and overall, with intervals.

As in VIEScore and GEdit-Bench, a category's score is the mean over its scored pairs, and the
overall score the mean over the categories. Pairs without a score are counted beside it and
never enter a mean, and so are categories without any. Languages and GEdit-Bench's subsets have
figures of their own (`apps.edit_benchmark.parts`), equal to those of its calculate_statistics.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any, TypedDict

from apps.edit_benchmark.editing import EditedBy
from apps.edit_benchmark.judge_words import settings_in_words
from apps.edit_benchmark.parts import Part, Subset, parts_of
from apps.edit_benchmark.ranks import RankCorrelation, correlate
from apps.edit_benchmark.records import Record, categories_of
from apps.edit_benchmark.statistics import Interval, bootstrap_mean, bootstrap_mean_of_means
from apps.run_folders import runs_below
from core.errors import InputError

FILE_NAME = "summary.json"
OVERALL = "overall"


@dataclass(frozen=True)
class ScoreLine:
    """One score of one category: over its pairs; overall: over the categories' means.

    A single value has no deviation and no interval. The interval of an overall score resamples the
    pairs of every category, too; there is none where a category has a single scored pair.
    """

    mean: float
    median: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CategoryLine:
    """One row of the table. `failed`: no edit, or no verdict; `unparsed`: a verdict out of form.

    `mass`: by call the mean probability of the score tokens, for judges of type vlm_logits, over
    all verdicts, also those that have no score because of it. `language` is given where the data
    has parts. `drift`: of the edits whose drift could be `measured`, the mean `shift` in percent
    of the diagonal, and the mean `zoom` in percent, whichever way.
    """

    category: str
    n: int
    scored: int
    failed: int
    unparsed: int
    not_tried: int
    scores: dict[str, ScoreLine]
    mass: dict[str, float]
    language: str | None = None
    drift: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Coverage:
    """Over how many of a part's categories an overall score is: some may have no scored pair."""

    scored: int
    of: int


@dataclass(frozen=True)
class OverallLine(CategoryLine):
    """The figures of a whole part, or of all data where it has no parts."""

    over: Coverage = Coverage(0, 0)
    subset: Subset | None = None


@dataclass(frozen=True)
class PartSummary:
    """One language, whole or its intersection subset."""

    language: str
    subset: Subset
    categories: list[CategoryLine]
    overall: OverallLine


@dataclass(frozen=True)
class JudgedBy:
    """The judge of a table.

    Attributes:
        model: name and hash of its weights.
        prompt_hash: of its prompt file.
        settings: those that decide scores, such as the temperature.
        seed: of the run; a judge that samples draws from it.
        batch_size: edits at once; in low precision it may change a word. None where unknown.
        libraries: versions of those that computed the verdicts; several where they differ.
        usage: what its server was asked and counted, over all verdicts; None where none was asked.
    """

    judge: str
    model: str
    prompt_hash: str
    settings: dict[str, Any]
    seed: int | None
    batch_size: int | None = None
    libraries: list[str] = field(default_factory=list)
    usage: dict[str, float] | None = None

    @property
    def identity(self) -> str:
        """Judge, model and settings as text, equal for tables that can be compared."""
        settings = [f"{k} {v}" for k, v in self.settings.items() if v is not None and k != "type"]
        return f"{self.judge} ({', '.join([self.model, f'prompts {self.prompt_hash}', *settings])})"

    @property
    def described(self) -> str:
        """Judge, model and settings, for people."""
        told = [self.model, f"prompts {self.prompt_hash}", *settings_in_words(self.settings)]
        return f"{self.judge} ({', '.join(told)})"

    @property
    def computed(self) -> str:
        """What else may move a score: the seed, the size of batches and libraries, where known."""
        seed = [] if self.seed is None else [f"seed {self.seed}"]
        size = [] if self.batch_size is None else [f"batches of {self.batch_size}"]
        return "".join(f", {told}" for told in (*seed, *size, *self.libraries))


@dataclass(frozen=True)
class Figures:
    """What one judge found.

    Attributes:
        names: of the scores, in the order of the columns.
        categories: one line per category, and per language where the data has several.
        overall: counts of all pairs; scores only if they are of one language.
        parts: one per language and subset; empty where `overall` says it all.
    """

    judged_by: JudgedBy
    names: list[str]
    categories: list[CategoryLine]
    overall: OverallLine
    parts: list[PartSummary]

    @property
    def overalls(self) -> list[OverallLine]:
        """The last lines of the table: one per part."""
        return [part.overall for part in self.parts] or [self.overall]


@dataclass(frozen=True)
class JudgeFigures(Figures):
    """What another judge found of the same edits, and how far both put them in one order."""

    same_order: RankCorrelation


@dataclass(frozen=True)
class Summary(Figures):
    """The table of a run.

    Attributes:
        editor: the identity of its model.
        judges: all that scored these edits, this run's first.
        rank_correlations: Spearman's rho with each of the others that have an overall score.
        official: the figures that the benchmark's own script computes from the same scores; None
            where the data is of no benchmark with such a script.
        output_size: in which edits were judged: model, source, or both.
        best_of: what the choice among several edits of each pair gained; None where pairs have one.
    """

    editor: str
    judges: list[Figures]
    rank_correlations: dict[str, float]
    edited_by: EditedBy | None = None
    official: dict[str, Any] | None = None
    best_of: dict[str, Any] | None = None
    output_size: str = "model"


@dataclass(frozen=True)
class OtherJudge:
    """Records of the same pairs as another judge scored them."""

    judged_by: JudgedBy
    names: list[str]
    records: list[Record]


def summarise(
    records: Sequence[Record],
    names: Sequence[str],
    judged_by: JudgedBy,
    editor: str,
    samples: int,
    others: Sequence[OtherJudge] = (),
    edited_by: EditedBy | None = None,
) -> Summary:
    """The table of a run.

    Args:
        names: of the scores, in the order of the columns.
        samples: resamplings behind an interval.
        others: judges that scored the same edits in earlier runs.
    """
    own = figures_of(records, names, judged_by, samples)
    beside = [_beside(records, names, other, samples) for other in others]
    rhos = {
        found.judged_by.judge: found.same_order.spearman
        for found in beside
        if found.same_order.spearman is not None
    }
    return Summary(
        **vars(own),
        editor=editor,
        judges=[own, *beside],
        rank_correlations=rhos,
        edited_by=edited_by,
    )


def figures_of(
    records: Sequence[Record], names: Sequence[str], judged_by: JudgedBy, samples: int
) -> Figures:
    """Counts and scores of one judge, per category and overall."""
    found = parts_of(records)
    parts = [_part(part, records, names, samples) for part in found]
    overall = _overall(records, categories_of(records), names, samples)
    if parts:
        whole = [part for part in parts if part.subset == "full"]
        rows = [line for part in whole for line in part.categories]
        unknown = [r for r in records if not r.language]
        rows += _lines(unknown, categories_of(unknown), names, samples, language="")
        if len(whole) > 1:
            overall = replace(overall, scores={})
    else:
        rows = _lines(records, categories_of(records), names, samples)
    return Figures(judged_by, list(names), rows, overall, parts)


def _beside(
    records: Sequence[Record], names: Sequence[str], other: OtherJudge, samples: int
) -> JudgeFigures:
    theirs = {(r.category, r.pair_id): r for r in other.records}
    both = [(r, theirs[r.category, r.pair_id]) for r in records]
    last = names[-1], other.names[-1]
    values = [
        (x.scores[last[0]], y.scores[last[1]])
        for x, y in both
        if x.scores and y.scores and last[0] in x.scores and last[1] in y.scores
    ]
    same_order = correlate([x for x, _ in values], [y for _, y in values])
    found = figures_of(other.records, other.names, other.judged_by, samples)
    return JudgeFigures(**vars(found), same_order=same_order)


def _part(part: Part, records: Sequence[Record], names: Sequence[str], samples: int) -> PartSummary:
    """A category of the language that has no pair in a subset is one without a score there."""
    mine = [r for r in records if part.holds(r)]
    categories = categories_of([r for r in records if r.language == part.language])
    overall = _overall(mine, categories, names, samples)
    return PartSummary(
        part.language,
        part.subset,
        _lines(mine, categories, names, samples, part.language),
        replace(overall, language=part.language, subset=part.subset),
    )


def _of(records: Sequence[Record], category: str) -> list[Record]:
    return [r for r in records if r.category == category]


class _Counts(TypedDict):
    n: int
    scored: int
    failed: int
    unparsed: int
    not_tried: int


def _counts(records: Sequence[Record]) -> _Counts:
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


def _lines(
    records: Sequence[Record],
    categories: Sequence[str],
    names: Sequence[str],
    samples: int,
    language: str | None = None,
) -> list[CategoryLine]:
    lines = [_line(c, _of(records, c), names, samples) for c in categories]
    return [replace(line, language=language) for line in lines]


def _line(
    category: str, records: Sequence[Record], names: Sequence[str], samples: int
) -> CategoryLine:
    scores = {}
    for name in names:
        values = values_of(records, name)
        interval = bootstrap_mean(values, samples, seed=0)
        if interval is not None:
            scores[name] = _score_line(interval, values)
    return CategoryLine(
        category=category,
        scores=scores,
        mass=_mean_mass(records),
        drift=_mean_drift(records),
        **_counts(records),
    )


def _score_line(interval: Interval, values: Sequence[float]) -> ScoreLine:
    spread = pstdev(values) if len(values) > 1 else None
    return ScoreLine(interval.mean, median(values), spread, interval.low, interval.high)


def _overall(
    records: Sequence[Record],
    categories: Sequence[str],
    names: Sequence[str],
    samples: int,
) -> OverallLine:
    # By name, as GEdit-Bench lists its own: the last digit of a mean goes by the order.
    groups = [_of(records, category) for category in sorted(categories)]
    scored = sum(any(r.scores is not None for r in group) for group in groups)
    scores = {}
    for name in names:
        by_group = [values_of(group, name) for group in groups]
        interval = bootstrap_mean_of_means(by_group, samples, seed=0)
        if interval is not None:
            means = [mean(values) for values in by_group if values]
            scores[name] = _score_line(interval, means)
    return OverallLine(
        category=OVERALL,
        scores=scores,
        mass=_mean_mass(records),
        drift=_mean_drift(records),
        over=Coverage(scored, len(groups)),
        **_counts(records),
    )


def _mean_mass(records: Sequence[Record]) -> dict[str, float]:
    """Mean mass over all verdicts, by call; overall it is no mean of means, as it is no score."""
    masses: dict[str, list[float]] = {}
    for record in records:
        for name, mass in (record.mass or {}).items():
            masses.setdefault(name, []).append(mass)
    return {name: mean(values) for name, values in masses.items()}


def _mean_drift(records: Sequence[Record]) -> dict[str, float]:
    """Mean drift over all edits whose drift was measured; empty without any."""
    found = [record.drift for record in records if record.drift]
    if not found:
        return {}
    return {
        "shift": mean(one["shift"] for one in found),
        "zoom": mean(abs(one["zoom"]) for one in found),
        "measured": len(found),
    }


def to_json(summary: Summary) -> str:
    """The content of summary.json."""
    return json.dumps(asdict(summary), ensure_ascii=False, indent=1) + "\n"


@dataclass(frozen=True)
class Makers:
    """The judge of the results in a folder, how they were edited, and the names of the scores.

    Attributes:
        names: in the order of the columns; the last is the judge's main score.
    """

    judged_by: JudgedBy
    edited_by: str
    names: tuple[str, ...]


def read_makers(folder: Path) -> Makers:
    """Read judge and editor from the summary of a run.

    Raises:
        InputError: no summary there, or a damaged one.
    """
    file = folder / FILE_NAME
    try:
        data: dict[str, Any] = json.loads(file.read_text("utf-8"))
        edited = data.get("edited_by")  # earlier versions wrote the model's name alone
        line = EditedBy(**edited).line if edited else str(data.get("editor"))
        return Makers(JudgedBy(**data["judged_by"]), line, tuple(map(str, data["names"])))
    except OSError as error:
        meant = runs_below(folder, FILE_NAME)
        raise InputError(f"{file}: cannot be read: {error.strerror}.{meant}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: not the summary of a benchmark ({error}).") from None
