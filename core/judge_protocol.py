"""A judge's protocol, which a prompt file holds: what it is asked, and how scores come of it.

A prompt file is YAML: any number of calls, each with the pictures that it shows and the scores that
it asks for. Unless it says otherwise a call's score is the least of its parts, and the overall
score O the geometric mean of the calls', as VIEScore (Ku et al. 2024, arXiv:2312.14867) and
GEdit-Bench have it: semantic consistency SC (success of the edit, and no over-editing) with source
and edited picture, perceptual quality PQ (naturalness, and no artifacts) with the edited picture
alone, and O = sqrt(SC * PQ).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from core.judge_calls import WORDS, JudgeCall, Name, Picture
from core.judge_overall import Overall
from core.judge_rows import ALWAYS_KNOWN, INSTRUCTION, PICTURES, Row
from core.section import Section


class PictureSize(Section):
    """How large a judge sees the pictures, whatever the model could see.

    Attributes:
        area: pixels, width x height.
        longest_side: pixels.
        exactly: smaller pictures are made larger, too.
        step: sides are multiples of so many pixels, rounded down; with `exactly` rounded as
            Qwen2.5-VL's own `smart_resize` does where the area is the least and the most: down, or
            up where a picture is made larger.
        of: the kinds of pictures that are resized.
    """

    area: Annotated[int, Field(ge=256, le=2**26)] | None = None
    longest_side: Annotated[int, Field(ge=16, le=2**13)] | None = None
    exactly: bool = False
    step: Annotated[int, Field(ge=1, le=256)] | None = None
    of: tuple[Picture, ...] = ("source", "edited", "target", "references")

    @model_validator(mode="after")
    def _one(self) -> "PictureSize":
        if (self.area is None) is (self.longest_side is None):
            raise ValueError("give one of area and longest_side")
        if self.step is not None and self.area is None:
            raise ValueError("step needs area")
        return self


class Sampling(Section):
    """Settings of a judge where the user's own say nothing; see config/edit_benchmark.yaml."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    num_pass: Annotated[int, Field(ge=1, le=64)] | None = None


class JudgePrompts(Section):
    """A prompt file.

    Attributes:
        name: of the protocol.
        source: where it was published.
        fields: row fields of the data that its texts and conditions name.
        placeholders: words of official texts that stand for a row field, as `<edit_prompt>` does
            for `instruction`.
        pictures: their size.
        sampling: usual settings.
        uncaptioned: models that are shown pictures without the captions of the calls, by the
            `model_type` of their config.json.
        reward_token: for `reward`: the special token at which the heads are read.
        overall: scores that are made of the calls'; the last one is the main one.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    source: str = ""
    fields: tuple[Name, ...] = ()
    placeholders: dict[Annotated[str, Field(min_length=2)], str] = Field(default_factory=dict)
    pictures: PictureSize | None = None
    sampling: Sampling = Field(default_factory=Sampling)
    uncaptioned: tuple[str, ...] = ()
    reward_token: str = ""
    calls: Annotated[list[JudgeCall], Field(min_length=1, max_length=32)]
    overall: tuple[Overall, ...] = (Overall(),)

    @model_validator(mode="before")
    @classmethod
    def _one_overall(cls, given: Any) -> Any:
        """One section may stand for a list of one."""
        if isinstance(given, dict) and isinstance(given.get("overall"), dict):
            return {**given, "overall": [given["overall"]]}
        return given

    @property
    def _given(self) -> list[str]:
        """Names of the scores of all calls, each of a call's forms included."""
        return [
            name
            for call in self.calls
            for name in dict.fromkeys(name for form in call.forms for name in form.gives)
        ]

    @model_validator(mode="after")
    def _names_differ(self) -> "JudgePrompts":
        names = self._given
        overall = [one.name for one in self.overall]
        taken = {*names, *overall}
        several = len(names) > 1 or self.overall != (Overall(),)
        if several and len(taken) < len(names) + len(overall):
            raise ValueError(
                f"several calls need different names, none of them {' or '.join(overall)}"
            )
        for one in (form for each in self.overall for form in each.forms):
            named = {*one.weights, *one.calls, *([one.penalty.call] if one.penalty else [])}
            unknown = sorted(named - set(names))
            if unknown:
                raise ValueError(f"overall names {unknown[0]!r}, which is no call's score")
        return self

    @model_validator(mode="after")
    def _answers_are_heard_that_were_given(self) -> "JudgePrompts":
        said: set[str] = set()
        for call in self.calls:
            for form in call.forms:
                unknown = [name for name in form.hears if name not in said]
                if unknown:
                    raise ValueError(
                        f"{call.name} hears {unknown[0]!r}, which is no call before it with "
                        "answer: words"
                    )
            if any(form.answer == WORDS for form in call.forms):
                said.add(call.name)
        named = sorted(said & {*self.fields, *ALWAYS_KNOWN, INSTRUCTION})
        if named:
            raise ValueError(f"{named[0]!r} is a call with answer: words and a field of rows")
        if not self._given:
            raise ValueError("no call gives a score; one needs another answer than words")
        return self

    @model_validator(mode="after")
    def _geometric_means_are_of_scores_from_zero_on(self) -> "JudgePrompts":
        below = [
            name
            for form in self.forms
            for name in form.gives
            if form.reported is not None and min(form.reported) < 0
        ]
        if below and (named := self.geometric_means_of(below)):
            raise ValueError(
                f"overall.combine: a geometric mean needs scores from 0 on, and {named} may be "
                "below; give combine: mean, or another scale in reported"
            )
        return self

    def geometric_means_of(self, names: Iterable[str]) -> str | None:
        """The first of some scores that counts in a geometric mean, which is the usual way."""
        if len(self.score_names) == 1:
            return None
        for form in (form for each in self.overall for form in each.forms):
            if form.combine == "geometric_mean":
                for name in names:
                    if not form.calls or name in form.calls:
                        return name
        return None

    @model_validator(mode="after")
    def _conditions_are_on_known_fields(self) -> "JudgePrompts":
        known = {*self.fields, *ALWAYS_KNOWN, *PICTURES}
        unknown = sorted({*self._in_conditions(), *self.placeholders.values()} - known)
        unknown = [name for name in unknown if name != INSTRUCTION]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is no row field that is known here; list it under `fields`"
            )
        return self

    def _in_conditions(self) -> Iterator[str]:
        for call in self.calls:
            yield from _conditions_of(call)
        for one in self.overall:
            yield from _conditions_of(one)

    @property
    def forms(self) -> list[JudgeCall]:
        """All questions that any pair may be asked."""
        return [form for call in self.calls for form in call.forms]

    @property
    def spoken(self) -> list[str]:
        """Names of the calls whose answers are words, which later questions name."""
        return [call.name for call in self.calls if any(f.answer == WORDS for f in call.forms)]

    @property
    def row_fields(self) -> list[str]:
        """Names of the row fields that a task has to carry, as they decide its scores."""
        conditions = [name for name in self._in_conditions() if name in ALWAYS_KNOWN]
        return list(dict.fromkeys([*self.fields, *conditions]))

    @property
    def pictures_seen(self) -> set[str]:
        """Kinds of pictures that are shown for some pair, or whose presence decides something."""
        return {kind for form in self.forms for kind in form.sees} | set(self._in_conditions())

    @property
    def score_names(self) -> list[str]:
        """Names of all scores that a pair may have, the main one last."""
        names = self._given
        if len(names) == 1 and self.overall == (Overall(),):
            return names
        return [*names, *(one.name for one in self.overall)]

    def asked(self, row: Row) -> list[JudgeCall]:
        """The questions about one pair."""
        found = (call.for_row(row) for call in self.calls)
        return [call for call in found if call is not None]

    def problem_of(self, row: Row) -> str | None:
        """The reason why a pair cannot be judged; None if it can."""
        asked = self.asked(row)
        if not asked:
            return f"No question of the prompt file {self.name} is for such a pair."
        for call in asked:
            named = (n for n in self.fields if f"{{{n}}}" in call.text)
            for name in named:
                if name not in row:
                    return (
                        f"The judge's question {call.name} needs the field {name!r}, which this "
                        "pair does not have."
                    )
            for kind in call.sees:
                if kind in PICTURES and kind not in row:
                    return (
                        f"The judge's question {call.name} shows {kind} pictures, and this pair "
                        f"has none ({PICTURES[kind]})."
                    )
        return None

    def scores_of(self, row: Row, answers: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
        """All scores of a pair from the answers to what it was asked, in the order of the calls."""
        values: dict[str, float | None] = {}
        for call, answer in zip(self.asked(row), answers, strict=True):
            if answer.get("problem") and call.answer == WORDS:
                return None
            values |= call.values_in(answer)
        return self.scores(values, row)

    def readable_of(self, row: Row, answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Scores of single calls that could be read, also where another call's could not.

        Empty where words are missing that later calls hear of.
        """
        values: dict[str, float] = {}
        made = {one.name for one in self.overall}
        for call, answer in zip(self.asked(row), answers, strict=True):
            if answer.get("problem") and call.answer == WORDS:
                return {}
            values |= {
                name: value
                for name, value in call.values_in(answer).items()
                if value is not None and name not in made
            }
        return values

    def scores(
        self, values: Mapping[str, float | None], row: Row | None = None
    ) -> dict[str, float] | None:
        """All scores from those of the calls that a pair is asked; None if one is missing."""
        known = {name: v for name, v in values.items() if v is not None}
        asked = self.calls if row is None else self.asked(row)
        if any(name not in known for call in asked for name in call.gives):
            return None
        overall = {one.name: one.score(known, row or {}) for one in self.overall}
        return {**known, **{name: score for name, score in overall.items() if score is not None}}


def _conditions_of(one: JudgeCall | Overall) -> Iterator[str]:
    yield from one.where
    if isinstance(one, JudgeCall) and one.edited_at is not None:
        yield one.edited_at
    for variant in one.variants:
        yield from _conditions_of(variant)
