"""One question to a judge, and how its answer becomes the question's score."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from core.judge_answer import Form, Reading, read_answer
from core.judge_combining import Combine, Range, capped, combined, rescaled
from core.judge_lines import read_final_score, read_lines, read_words
from core.judge_rows import INSTRUCTION, Row, Where, fits
from core.section import Section, with_variants

Picture = Literal["source", "edited", "target", "references"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
WORDS = "words"
"""The form of an answer that is no score."""
Piece = tuple[Literal["text"], str] | tuple[Literal["picture"], Picture, int]
"""A part of a question: a text, or the picture of a kind at a place."""


class Official(Section):
    """A text that lies in another file, as an official benchmark's question does.

    Attributes:
        file: a text file, or a JSON or Python file of which `entries` are taken. A path relative to
            the prompt file.
        entries: keys of the JSON object, or names to which the Python file assigns a text; several
            are joined by line breaks. A Python file is read and never run.
        replace: words to replace in it, such as another scale.
        formatted: it was written for Python's `str.format`, where doubled braces mean single ones.
    """

    file: Annotated[str, Field(min_length=1)]
    entries: tuple[str, ...] = ()
    replace: dict[str, str] = Field(default_factory=dict)
    formatted: bool = False


def _listed(given: Any) -> Any:
    """One section may stand for a list of one."""
    return [given] if isinstance(given, dict) else given


class JudgeCall(Section):
    """One question.

    Attributes:
        name: of its score.
        sees: the pictures, in this order, before the text: `source`, `edited`, `target` (of a right
            result), `references`.
        text: the question; `{instruction}` stands for the edit's instruction, and `{name}` for a
            row field that the prompt file lists under `fields`.
        text_from: where a question that is not written here lies; several texts follow each other.
        text_first: the text comes before the pictures.
        hears: earlier calls of the file whose `answer` is `words`; the text names what was said to
            each as `{name}`. Such a call may show no pictures.
        edited_at: a row field with the place, from 1, at which the edited picture stands among the
            others; without it there the order of `sees` counts. `{n}` in captions is a place then.
        captions: words before each picture of a kind; `{n}` is its number, from 1.
        answer: `scores` is `{"score": [one number per part], "reasoning": "..."}`, or one number
            under each part's name; `yes_no` is `{"score": "yes" or "no", "reasoning": "..."}`;
            `lines` and `final_score` are those of `core.judge_lines`; `words` are taken as they
            are and give no score, for a later call that `hears` them.
        parts: what the numbers are, in order.
        apart: each part is a score of its own, under its own name; `combine` means nothing then.
        lowest, highest: of a number; an answer outside them is none.
        caps: by part the one that it may not exceed; what does is lowered to it.
        combine, weights, full: how the parts become the call's score; see `core.judge_combining`.
        reported: the scale from which the score is told, in place of `lowest` to `highest`.
        decimals: to which the score is rounded.
        where: the pairs that are asked: conditions on row fields.
        variants: the same question for some pairs, with `where` and what differs; the first that
            fits counts. Where none does, the call itself is asked, if it has a text.
        prefix: for `vlm_logits`: the answer up to the score token.
        tokens: for `vlm_logits`: the score tokens and their values.
        head: for `reward`: the number of the head that answers.
    """

    name: Name
    sees: list[Picture] = Field(default_factory=list)
    hears: tuple[Name, ...] = ()
    text: str = ""
    text_from: Annotated[tuple[Official, ...], BeforeValidator(_listed)] = ()
    text_first: bool = False
    edited_at: Name | None = None
    captions: dict[Picture, str] = Field(default_factory=dict)
    answer: Literal["scores", "yes_no", "lines", "final_score", "words"] = "scores"
    parts: Annotated[tuple[str, ...], Field(min_length=1)] = ("score",)
    apart: bool = False
    lowest: Annotated[float, Field(ge=0)] = 0
    highest: float = 10
    caps: dict[str, str] = Field(default_factory=dict)
    combine: Combine = "least"
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    full: float | None = None
    reported: Range | None = None
    decimals: Annotated[int, Field(ge=0, le=12)] | None = None
    where: Where = Field(default_factory=dict)
    variants: "tuple[JudgeCall, ...]" = ()
    prefix: str = ""
    tokens: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    head: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _variants_inherit(cls, given: Any) -> Any:
        return with_variants(given, frozenset({"text", "text_from"}))

    @model_validator(mode="after")
    def _whole(self) -> "JudgeCall":
        if not self.variants and not self.asks:
            raise ValueError("a call needs a text, text_from, or variants that have one")
        if self.text and self.text_from:
            raise ValueError("give either text or text_from, not both")
        if self.asks and not self.sees and not self.hears:
            raise ValueError("a call needs sees: the pictures that it shows")
        if self.answer == "yes_no" and len(self.parts) > 1:
            raise ValueError("a yes_no call has one part")
        if self.apart and self.caps:
            raise ValueError("apart leaves each part as it is, so caps have nothing to do there")
        if self.highest <= self.lowest:
            raise ValueError(f"highest {self.highest:g} has to be above lowest {self.lowest:g}")
        unknown = sorted({*self.caps, *self.caps.values(), *self.weights} - set(self.parts))
        if unknown:
            raise ValueError(f"caps and weights name parts; {unknown[0]!r} is none of parts")
        if self.combine == "weights" and not self.weights:
            raise ValueError("combine: weights needs weights, a number for each part that counts")
        return self

    @property
    def asks(self) -> bool:
        """It has a question of its own, beside those of its variants."""
        return bool(self.text or self.text_from)

    @property
    def forms(self) -> "list[JudgeCall]":
        """All questions that it may be asked as."""
        return [form for one in self.variants for form in one.forms] + [self] * self.asks

    def for_row(self, row: Row) -> "JudgeCall | None":
        """The question for a pair; None: it is not asked this one."""
        if not fits(row, self.where):
            return None
        found = (one.for_row(row) for one in self.variants)
        return next((one for one in found if one is not None), self if self.asks else None)

    def question(self, instruction: str, row: Row | None = None) -> str:
        """The question with the pair's own words in place; other braces stay as they are."""
        words = {**(row or {}), INSTRUCTION: instruction}
        marks = "|".join(re.escape(f"{{{name}}}") for name in words)
        return re.sub(marks, lambda mark: words[mark.group()[1:-1]], self.text)

    def pieces(self, row: Row, counts: Mapping[str, int], captioned: bool = True) -> list[Piece]:
        """Pictures and texts in the order in which the judge gets them.

        Args:
            counts: of the pair's pictures, by kind.
            captioned: with the words before each picture, where there are any.
        """
        pictures = [(kind, place) for kind in self.sees for place in range(counts[kind])]
        at = self._place_of_edited(row)
        if at is not None:
            pictures.remove(("edited", 0))
            pictures.insert(at - 1, ("edited", 0))
        shown: list[Piece] = []
        for number, (kind, place) in enumerate(pictures):
            if captioned and kind in self.captions:
                told = place if at is None else number
                shown.append(("text", self.captions[kind].replace("{n}", str(told + 1))))
            shown.append(("picture", kind, place))
        text: Piece = ("text", self.question(row[INSTRUCTION], row))
        return [text, *shown] if self.text_first else [*shown, text]

    def _place_of_edited(self, row: Row) -> int | None:
        """Where the edited picture stands among all; None where the order of `sees` counts."""
        given = row.get(self.edited_at, "") if self.edited_at and "edited" in self.sees else ""
        return int(given) if given.isdecimal() and int(given) > 0 else None

    @property
    def gives(self) -> tuple[str, ...]:
        """Names of the scores that an answer gives."""
        if self.answer == WORDS:
            return ()
        return self.parts if self.apart else (self.name,)

    def values_in(self, answer: Mapping[str, Any]) -> dict[str, float | None]:
        """The scores of an answer, which is as a verdict records it; None where it has none."""
        if self.answer == WORDS:
            return {}
        if not self.apart:
            return {self.name: answer["value"]}
        parts = answer.get("parts") or {}
        given = {name: parts.get(name) for name in self.parts}
        return {n: None if v is None else self.as_reported(v) for n, v in given.items()}

    @property
    def range(self) -> Range:
        """The scale of its parts."""
        return (0, 1) if self.answer == "yes_no" else (self.lowest, self.highest)

    @property
    def form(self) -> Form:
        """What an answer has to give."""
        return Form(self.parts, self.lowest, self.highest, self.answer == "yes_no")

    def read(self, words: str, cut: bool = False) -> Reading:
        """The parts in an answer.

        Args:
            cut: the judge had more to say when it reached its limit of tokens.
        """
        readers = {"lines": read_lines, "final_score": read_final_score, WORDS: read_words}
        return readers.get(self.answer, read_answer)(words, self.form, cut)

    def value_of(self, parts: Mapping[str, float]) -> float:
        """The call's score."""
        lowest, highest = self.range
        full = highest if self.full is None else self.full
        value = combined(capped(parts, self.caps), self.combine, self.weights, full)
        if self.combine == "all_or_nothing":
            value = highest if value else lowest
        return self.as_reported(value)

    def as_reported(self, value: float) -> float:
        """A score on the scale from which it is told."""
        if self.reported is not None:
            value = rescaled(value, self.range, self.reported)
        return value if self.decimals is None else round(value, self.decimals)
