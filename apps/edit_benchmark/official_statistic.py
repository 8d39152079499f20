"""A benchmark's own statistic over scores, equal to what its script computes from the same ones."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
    """

    pair: Pair
    scores: Mapping[str, float] | None
    source_image: str = ""
    edited_image: str = ""


class Statistic(ABC):
    """What the script of a benchmark computes.

    Attributes:
        script: its name, and where it is published.
        names: of the scores that it needs, each with the names under which judges may give it.
    """

    script: str
    names: Mapping[str, Sequence[str]]

    @abstractmethod
    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """The script's figures, ready for JSON; None where there is nothing to average."""

    @abstractmethod
    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """The files of scores that the script reads, by their paths below its folder of results."""

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


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def rounded_mean(values: Sequence[float]) -> float | None:
    """The mean to two decimals, as scripts round that take means of means; None of nothing."""
    return round(sum(values) / len(values), 2) if values else None


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").replace(" ", "").casefold()
