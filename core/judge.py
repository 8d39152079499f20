"""What a judge is asked, and how its answers become scores.

A prompt file is YAML: one or two calls, each with the pictures that it shows and the scores
that it asks for. VIEScore (Ku et al. 2024, arXiv:2312.14867) and GEdit-Bench ask twice:
semantic consistency SC (success of the edit, and no over-editing) with source and edited
picture, perceptual quality PQ (naturalness, and no artifacts) with the edited picture alone. A
call's score is the least of its parts, the overall score O = sqrt(SC * PQ).
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from core.errors import InputError
from core.judge_answer import Form, read_answer
from core.judge_prompt import INSTRUCTION, placeholder_problem
from core.names import bounded, cleaned, cut, distinct
from core.paths import readings
from core.settings import PROJECT_DIR, JudgeSettings, Section
from core.validation import describe
from core.yaml_files import parse_yaml

JUDGES_DIR = PROJECT_DIR / "config" / "judges"
OVERALL = "O"
MAX_MODEL_NAME = 60  # characters of it in a folder's name
# Raise it when answers come to be asked for or read in another way, so that they are asked again.
PROTOCOL = 2


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
        """Braces of a JSON example in the text stay as they are."""
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


@dataclass(frozen=True)
class Judge:
    """A judge's settings and prompts."""

    settings: JudgeSettings
    prompts: JudgePrompts
    prompt_hash: str

    def name(self, model_identity: str) -> str:
        """Of its folder of verdicts: type, prompts and model, such as vlm-viescore-Qwen3-VL-8B."""
        model = re.sub(r"[#@].*", "", model_identity).rpartition("/")[2]
        fit = cleaned(model, "-.", "-")
        short = cut(fit, MAX_MODEL_NAME)
        shown = fit if short == fit else distinct(model, short)
        return bounded(f"{self.settings.type}-{self.prompts.name}-{shown}")

    @property
    def deciding(self) -> dict[str, Any]:
        """Its settings that decide scores; the batch size does so by rounding only."""
        # Of how its model is loaded the model's own identity tells.
        undeciding = {"model", "prompts", "batch_size", "variant", "memory"}
        undeciding |= {"gpus_per_worker", "workers_per_gpu"}
        if self.settings.type != "vlm_logits":
            undeciding.add("minimum_mass")
        deciding = self.settings.model_dump(exclude=undeciding)
        return deciding if self.settings.type == "clip" else {**deciding, "protocol": PROTOCOL}

    def identity(self, model_identity: str) -> str:
        """All about it that decides scores."""
        text = json.dumps([self.deciding, self.prompt_hash], sort_keys=True)
        return f"{model_identity} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


CLIP_PROMPTS = JudgePrompts(
    name="similarity",
    calls=[JudgeCall(name=n, sees=["edited"], text="-") for n in ("text_image", "image_image")],
)


def load_judge(settings: JudgeSettings, folder: Path | None = None) -> Judge:
    """A judge with its prompt file, looked up in `folder`, then in config/judges.

    Raises:
        InputError: names the file, the key, the value and what would be right.
    """
    if settings.type == "clip":
        return Judge(settings, CLIP_PROMPTS, "none")
    if settings.prompts is None:
        raise InputError(f"judge.prompts: a judge of type {settings.type} needs a prompt file.")
    names = readings(settings.prompts, "judge.prompts")
    folders = [*([folder] if folder else []), JUDGES_DIR]
    places = [folder / name for name in names for folder in folders]
    file = next((place for place in places if os.path.isfile(place)), None)
    if file is None:
        looked = ", ".join(dict.fromkeys(str(place.parent) for place in places))
        raise InputError(f"judge.prompts: {settings.prompts!r} is no file (looked in {looked}).")
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from None
    try:
        prompts = JudgePrompts.model_validate(parse_yaml(text))
    except ValidationError as error:
        raise InputError(f"{file}: {describe(error)}") from None
    except ValueError as error:
        raise InputError(f"{file}: {error}.") from None
    problem = placeholder_problem([(call.name, call.text) for call in prompts.calls])
    if problem is not None:
        raise InputError(f"{file}: {problem}")
    if settings.type == "vlm_logits" and not all(c.prefix and c.tokens for c in prompts.calls):
        raise InputError(f"{file}: vlm_logits needs `prefix` and `tokens` in every call.")
    return Judge(settings, prompts, hashlib.sha256(text.encode()).hexdigest()[:16])


def parse_answer(raw: str, call: JudgeCall) -> dict[str, float] | None:
    """The parts of an answer, or None: nothing is guessed from an answer out of form."""
    return read_answer(raw, call.form).parts
