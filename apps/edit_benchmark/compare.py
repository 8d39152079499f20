"""Runs of the same pairs: which edited better, by how much, and which differences are real.

Every two runs are compared pair by pair, on the pairs that all of them have scored. A difference
is called real where a paired randomisation test says so after Holm's correction: over all overall
figures that are shown, and apart from them over all categories.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean

from apps.edit_benchmark.judges import TABLES, tables_of
from apps.edit_benchmark.parts import Part, Subset, parts_of
from apps.edit_benchmark.records import Record, categories_of, read_records
from apps.edit_benchmark.significance import LEVEL, holm, randomisation_test
from apps.edit_benchmark.statistics import Interval, bootstrap_mean_of_means
from apps.edit_benchmark.summary import OVERALL, JudgedBy, Makers, read_makers
from core.errors import InputError
from core.paths import as_text


@dataclass(frozen=True)
class Difference:
    """Run number `later` less run number `earlier`, pair by pair.

    Attributes:
        p: of the test alone.
        adjusted: after Holm's correction for all comparisons of its kind.
    """

    earlier: int
    later: int
    interval: Interval
    p: float
    adjusted: float = 1.0

    @property
    def is_real(self) -> bool:
        return self.adjusted < LEVEL


@dataclass(frozen=True)
class ComparisonLine:
    """One category, or `overall` all of them.

    Attributes:
        pairs: that all runs have scored.
        means: of each run.
        differences: of every two runs.
        language, subset: given where the data has parts.
    """

    category: str
    pairs: int
    means: list[float]
    differences: list[Difference]
    language: str | None = None
    subset: Subset | None = None

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.category, self.language, self.subset)))


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs: its folder's name, and how its edits were made."""

    name: str
    edited_by: str
    judged_by: JudgedBy


@dataclass(frozen=True)
class Comparison:
    """All categories, then `overall` (the mean over categories) of each part of the data.

    Attributes:
        score: by which runs are compared.
        names: all scores that the runs have in common.
        without_all: pairs that some run has no such score of.
    """

    score: str
    names: list[str]
    runs: list[ComparedRun]
    lines: list[ComparisonLine]
    without_all: int

    @property
    def overalls(self) -> list[ComparisonLine]:
        return [line for line in self.lines if line.category == OVERALL]

    @property
    def categories(self) -> list[ComparisonLine]:
        return [line for line in self.lines if line.category != OVERALL]


def compare(
    folders: Sequence[Path], score: str | None, samples: int, judge: str | None = None
) -> Comparison:
    """Paired differences of two or more result folders.

    Args:
        score: by which; None: the judge's main score, which is the last that all runs have.
        samples: resamplings behind the intervals, and flips behind the test.
        judge: whose scores; by default those of each folder's last run.

    Raises:
        InputError: no results, different judges, no such score, or no pair in common.
    """
    places = [folder if judge is None else tables_of(folder, judge) for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if judge is not None and not place.is_dir():
            raise InputError(f"{folder}: no tables of the judge {judge!r}{_judges_in(folder)}.")
    made = [read_makers(place) for place in places]
    _check_judges(folders, made)
    names = [n for n in made[0].names if all(n in maker.names for maker in made)]
    score = _chosen_score(score, names)
    found = [{_key(r): r for r in read_records(place)} for place in places]
    shared = [
        [records[key] for records in found]
        for key, first in found[0].items()
        if all(key in r and r[key].instruction == first.instruction for r in found)
    ]
    told = " and ".join(map(str, folders))
    if not shared:
        raise InputError(f"{told} have no pair in common.")
    scored = [group for group in shared if all(_has(record, score) for record in group)]
    if not scored:
        raise InputError(f"{told} have no pair that all of them have scored ({score}).")
    everywhere = len(set().union(*found))
    runs = [
        ComparedRun(as_text(folder.name), maker.edited_by, maker.judged_by)
        for folder, maker in zip(folders, made, strict=True)
    ]
    lines = _adjusted(_lines(scored, score, samples))
    return Comparison(score, names, runs, lines, everywhere - len(scored))


def _chosen_score(score: str | None, names: Sequence[str]) -> str:
    """Raises InputError for a score that not all runs have."""
    if not names:
        raise InputError("The runs have no score in common.")
    if score is not None and score not in names:
        raise InputError(f"--score {score}: no such score; the runs have {', '.join(names)}.")
    return score or names[-1]


def _judges_in(folder: Path) -> str:
    names = sorted(as_text(place.name) for place in (folder / TABLES).glob("*"))
    return f"; it has {', '.join(names)}" if names else ""


def _check_judges(folders: Sequence[Path], made: Sequence[Makers]) -> None:
    first = made[0].judged_by
    for folder, maker in zip(folders[1:], made[1:], strict=True):
        if maker.judged_by.identity != first.identity:
            raise InputError(
                f"{folders[0]} was judged by {first.described}, {folder} by "
                f"{maker.judged_by.described}: scores of different judges cannot be compared. "
                "--judge NAME takes a judge that scored them all."
            )


def _key(record: Record) -> tuple[str, str]:
    return (record.category, record.pair_id)


def _has(record: Record, score: str) -> bool:
    return record.scores is not None and score in record.scores


def _adjusted(lines: Sequence[ComparisonLine]) -> list[ComparisonLine]:
    """Lines whose p-values allow for all comparisons of their kind."""
    corrected: list[ComparisonLine] = list(lines)
    for kind in (True, False):
        places = [
            (i, k)
            for i, line in enumerate(lines)
            for k in range(len(line.differences))
            if (line.category == OVERALL) is kind
        ]
        values = holm([lines[i].differences[k].p for i, k in places])
        for (i, k), adjusted in zip(places, values, strict=True):
            differences = list(corrected[i].differences)
            differences[k] = replace(differences[k], adjusted=adjusted)
            corrected[i] = replace(corrected[i], differences=differences)
    return corrected


Groups = Sequence[Sequence[Record]]  # one list of records, a run each, for every pair


def _lines(scored: Groups, score: str, samples: int) -> list[ComparisonLine]:
    """Lines of the comparison: per category, then overall; each language by itself."""
    lines, overalls = [], []
    whole: list[Part | None] = [None]
    for part in _parts([group[0] for group in scored]) or whole:
        mine = [group for group in scored if part is None or part.holds(group[0])]
        if not mine:
            continue
        language, subset = (part.language, part.subset) if part else (None, None)
        groups = {
            category: [group for group in mine if group[0].category == category]
            for category in categories_of([group[0] for group in mine])
        }
        if subset != "intersection":
            found = (_line(category, [g], score, samples) for category, g in groups.items())
            lines += [replace(line, language=language) for line in found]
        by_name = [group for _, group in sorted(groups.items())]
        overall = _line(OVERALL, by_name, score, samples)
        overalls.append(replace(overall, language=language, subset=subset))
    return [*lines, *overalls]


def _parts(records: Sequence[Record]) -> list[Part]:
    """Parts of the records; a mark that all pairs have, as of earlier versions, counts as none."""
    if all(r.intersection_exist is not False for r in records):
        records = [replace(r, intersection_exist=None) for r in records]
    return parts_of(records)


def _line(name: str, groups: Sequence[Groups], score: str, samples: int) -> ComparisonLine:
    """A category, or several whose means count the same."""
    runs = range(len(groups[0][0]))
    values = [[_values(group, run, score) for group in groups] for run in runs]
    return ComparisonLine(
        name,
        sum(map(len, groups)),
        [mean(map(mean, values[run])) for run in runs],
        list(_differences(values, samples)),
    )


def _values(group: Groups, run: int, score: str) -> list[float]:
    return [(records[run].scores or {})[score] for records in group]


def _differences(values: Sequence[Sequence[Sequence[float]]], samples: int) -> Iterator[Difference]:
    """Of every two runs.

    Args:
        values: by run, category and pair.
    """
    for earlier, later in combinations(range(len(values)), 2):
        by_category = [
            [y - x for x, y in zip(before, after, strict=True)]
            for before, after in zip(values[earlier], values[later], strict=True)
        ]
        interval = bootstrap_mean_of_means(by_category, samples, seed=0)
        assert interval is not None
        p = randomisation_test(by_category, samples, seed=0)
        yield Difference(earlier, later, interval, p)
