"""A benchmark's own statistic over scores, equal to what its script computes from the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

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


class Statistic(Protocol):
    """What the script of a benchmark computes.

    Attributes:
        script: its name, and where it is published.
        names: of the scores that it needs, each with the names under which judges may give it;
            none where names differ, and only the number of ratings tells its protocol.
        ratings: that number.
    """

    script: str
    names: Mapping[str, Sequence[str]]
    ratings: int

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """The script's figures, ready for JSON; None where there is nothing to average."""

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """The files of scores that the script reads, by their paths below its folder of results."""


STATISTICS: Registry[Statistic] = Registry("official statistic", "apps.edit_benchmark.official")
"""One file per benchmark, under the name of its data set."""


def named_scores(
    statistic: Statistic, scores: Mapping[str, float] | None
) -> dict[str, float] | None:
    """A judge's scores under the statistic's names; None where none is there."""
    if scores is None:
        return None
    if not statistic.names:
        return dict(scores) if len(scores) == statistic.ratings else None
    plain = {_plain(name): value for name, value in scores.items()}
    found = {}
    for name, others in statistic.names.items():
        key = next((k for k in map(_plain, (name, *others)) if k in plain), None)
        if key is not None:
            found[name] = plain[key]
    return found or None


def mean_of(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").replace(" ", "").casefold()
