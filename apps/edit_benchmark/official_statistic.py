"""A benchmark's own statistic over scores, equal to what its script computes from the same ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from apps.edit_benchmark.pair import Pair
from core.registry import Registry


@dataclass(frozen=True)
class Judged:
    """A pair and the scores of its edit.

    Attributes:
        scores: by the names that the benchmark's statistic has for them; None where the edit is
            missing, or the judge's answer gave no score.
        unread: the judge answered, and its answer gave no score.
    """

    pair: Pair
    scores: Mapping[str, float] | None
    source_image: str = ""
    edited_image: str = ""
    unread: bool = False


class Statistic(ABC):
    """What the script of a benchmark computes.

    Attributes:
        script: its name, and where it is published.
        names: of the scores that it needs, each with the names under which judges may give it.
        joins_judges: it takes the scores of a pair, where this run's judge gives none that it
            needs, from another judge of the same edits.
    """

    script: str
    names: Mapping[str, Sequence[str]]
    joins_judges: bool = False

    @abstractmethod
    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """The script's figures, ready for JSON; None where there is nothing to average."""

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """The files of scores that the script reads, by their paths below its folder of results.

        None of a script that rates or measures edits itself.
        """
        del model, judged
        return {}

    def scores_of(self, pair: Pair, given: Mapping[str, float]) -> dict[str, float] | None:
        """A judge's scores under the statistic's names; None where none is there."""
        del pair
        plain = {_plain(name): value for name, value in given.items()}
        found = {}
        for name, others in self.names.items():
            key = next((k for k in map(_plain, (name, *others)) if k in plain), None)
            if key is not None:
                found[name] = plain[key]
        return found or None


STATISTICS: Registry[Statistic] = Registry("official statistic", "apps.edit_benchmark.official")
"""One file per benchmark, under the name of its data set."""


def parts_by(judged: Sequence[Judged], name: Callable[[Judged], str]) -> dict[str, list[Judged]]:
    """Those of each name together, in the order in which the names come first."""
    parts: dict[str, list[Judged]] = {}
    for one in judged:
        parts.setdefault(name(one), []).append(one)
    return parts


def by_category(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    return parts_by(judged, lambda one: one.pair.category)


def by_language(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    return parts_by(judged, lambda one: one.pair.language)


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def rounded_mean(values: Sequence[float]) -> float | None:
    """The mean to two decimals, as scripts round that take means of means; None of nothing."""
    return round(sum(values) / len(values), 2) if values else None


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").replace(" ", "").casefold()
