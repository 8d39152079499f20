"""Scores that are made of those of a judge's questions."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from core.judge_calls import Name
from core.judge_combining import Combine, Range, combined, rescaled
from core.judge_rows import Row, Where, fits
from core.section import Section, with_variants

OVERALL = "O"


class Penalty(Section):
    """What a call's low score does to the overall one: RISEBench halves it.

    Attributes:
        call: whose score counts.
        at_most: scores up to this one are punished.
        factor: of the overall score.
        floor: below which it does not fall.
    """

    call: str
    at_most: float
    factor: Annotated[float, Field(ge=0, le=1)]
    floor: float


class Overall(Section):
    """A score made of those of the calls.

    Attributes:
        name: of the score.
        combine, weights, full: how; see `core.judge_combining`.
        calls: names of the calls that count; by default all that were asked.
        all_asked: without one of `calls` there is nothing: 0 for `all_or_nothing`.
        where: the pairs that have it: conditions on row fields.
        variants: the same score for some pairs, as those of a call.
        penalty: after `combine`.
        of, reported: two scales; the score is told on the second.
        decimals: to which it is rounded.
    """

    name: Name = OVERALL
    combine: Combine = "geometric_mean"
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    full: float | None = None
    calls: tuple[str, ...] = ()
    all_asked: bool = False
    where: Where = Field(default_factory=dict)
    variants: "tuple[Overall, ...]" = ()
    penalty: Penalty | None = None
    of: Range | None = None
    reported: Range | None = None
    decimals: Annotated[int, Field(ge=0, le=12)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _variants_inherit(cls, given: Any) -> Any:
        return with_variants(given)

    @model_validator(mode="after")
    def _whole(self) -> "Overall":
        if self.combine == "weights" and not self.weights:
            raise ValueError("combine: weights needs weights, a number for each call that counts")
        if self.combine == "all_or_nothing" and self.full is None:
            raise ValueError("combine: all_or_nothing needs full: the score that each has to reach")
        if (self.of is None) is not (self.reported is None):
            raise ValueError("of and reported are two scales; give both or none")
        if self.of is not None and self.of[1] <= self.of[0]:
            raise ValueError("of: the second number has to be above the first")
        return self

    @property
    def forms(self) -> "list[Overall]":
        """All ways in which it may be made."""
        return [form for one in self.variants for form in one.forms] + [self]

    def score(self, values: Mapping[str, float], row: Row) -> float | None:
        """The score of a pair whose calls have `values`; None: such a pair has none."""
        if not fits(row, self.where):
            return None
        for variant in self.variants:
            if fits(row, variant.where):
                return variant.score(values, row)
        counting = {n: v for n, v in values.items() if not self.calls or n in self.calls}
        lacking = self.all_asked and len(counting) < len(self.calls)
        if not counting or (lacking and self.combine != "all_or_nothing"):
            return None
        value = 0.0 if lacking else combined(counting, self.combine, self.weights, self.full or 0)
        punished = self.penalty
        asked = punished is not None and punished.call in values
        if punished is not None and asked and values[punished.call] <= punished.at_most:
            value = max(punished.floor, value * punished.factor)
        if self.of is not None and self.reported is not None:
            value = rescaled(value, self.of, self.reported)
        return value if self.decimals is None else round(value, self.decimals)
