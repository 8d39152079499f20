"""What a judge is asked, and how its answers become scores.

A prompt file is YAML: one or two calls, each with the pictures that it shows and the scores
that it asks for. VIEScore (Ku et al. 2024, arXiv:2312.14867) and GEdit-Bench ask twice:
semantic consistency SC (success of the edit, and no over-editing) with source and edited
picture, perceptual quality PQ (naturalness, and no artifacts) with the edited picture alone. A
call's score is the least of its parts, the overall score O = sqrt(SC * PQ).
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.judge_answer import Form
from core.judge_prompt import INSTRUCTION
from core.section import Section

OVERALL = "O"


class JudgeCall(Section):
    """One question.

    Attributes:
        name: of its score.
        sees: the pictures, in this order, before the text.
        text: the question; `{instruction}` stands for the edit's instruction.
        answer: `scores` is `{"score": [one number per part], "reasoning": "..."}`, `yes_no` is
            `{"score": "yes" or "no", "reasoning": "..."}`.
        parts: what the numbers are, in order.
        lowest, highest: of a number; an answer outside them is none.
        prefix: for `vlm_logits`: the answer up to the score token.
        tokens: for `vlm_logits`: the score tokens and their values.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
    sees: Annotated[list[Literal["source", "edited"]], Field(min_length=1)]
    text: Annotated[str, Field(min_length=1)]
    answer: Literal["scores", "yes_no"] = "scores"
    parts: Annotated[tuple[str, ...], Field(min_length=1)] = ("score",)
    lowest: Annotated[float, Field(ge=0)] = 0
    highest: float = 10
    prefix: str = ""
    tokens: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_part(self) -> "JudgeCall":
        if self.answer == "yes_no" and len(self.parts) > 1:
            raise ValueError("a yes_no call has one part")
        return self

    def question(self, instruction: str) -> str:
        """The question with the instruction in its place; other braces stay as they are."""
        return self.text.replace(INSTRUCTION, instruction)

    @property
    def form(self) -> Form:
        """What an answer has to give."""
        return Form(self.parts, self.lowest, self.highest, self.answer == "yes_no")


class JudgePrompts(Section):
    """A prompt file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    source: str = ""
    calls: Annotated[list[JudgeCall], Field(min_length=1, max_length=2)]

    @model_validator(mode="after")
    def _names_differ(self) -> "JudgePrompts":
        names = [call.name for call in self.calls]
        if len(names) > 1 and len({*names, OVERALL}) <= len(names):
            raise ValueError(f"several calls need different names, none of them {OVERALL}")
        return self

    def scores(self, values: Mapping[str, float | None]) -> dict[str, float] | None:
        """All scores from those of the calls; None if one is missing."""
        known = {name: v for name, v in values.items() if v is not None}
        if len(known) < len(self.calls):
            return None
        return {**known, OVERALL: math.prod(known.values()) ** (1 / len(known))}
