"""A judge: its settings, its prompt file, and its type (`core.judge_type`)."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import InputError
from core.judge_calls import JudgeCall
from core.judge_official import with_official_texts
from core.judge_prompt import placeholder_problem
from core.judge_protocol import JudgePrompts
from core.judge_type import JUDGES, JudgeType
from core.names import bounded, cleaned, cut, distinct
from core.paths import readings
from core.settings import PROJECT_DIR, JudgeSettings
from core.validation import describe

JUDGES_DIR = PROJECT_DIR / "config" / "judges"
MAX_MODEL_NAME = 60  # characters of it in a folder's name
# Raise it when answers come to be asked for or read in another way, so that they are asked again.
PROTOCOL = 2
# Settings that decide nothing where a type does not name them.
OF_SOME_TYPES = {"minimum_mass"}
# Settings that came later than others, with what was usual before. That decides nothing, so that
# verdicts from before keep their fingerprints.
LATER: dict[str, Any] = {"num_pass": 1, "top_p": None, "top_k": None}


@dataclass(frozen=True)
class Judge:
    """A judge's settings and prompts."""

    settings: JudgeSettings
    prompts: JudgePrompts
    prompt_hash: str

    @property
    def type(self) -> JudgeType:
        """What the program has to know of its type."""
        return JUDGES[self.settings.type]

    def name(self, model_identity: str) -> str:
        """Name of the folder of verdicts: type, prompts and model, as vlm-viescore-Qwen3-VL-8B."""
        model = re.sub(r"[#@].*", "", model_identity).rpartition("/")[2]
        fit = cleaned(model, "-.", "-")
        short = cut(fit, MAX_MODEL_NAME)
        shown = fit if short == fit else distinct(model, short)
        return bounded(f"{self.settings.type}-{self.prompts.name}-{shown}")

    @property
    def deciding(self) -> dict[str, Any]:
        """Settings that decide scores; the batch size only rounds otherwise and does not count."""
        # Of how its model is loaded the model's own identity tells.
        undeciding = {"model", "prompts", "batch_size", "variant", "memory"}
        undeciding |= {"gpus_per_worker", "workers_per_gpu", "lora", "lora_revision"}
        undeciding |= OF_SOME_TYPES - self.type.own_settings
        deciding = self.settings.model_dump(exclude=undeciding)
        del deciding["api"]
        if not self.type.loads:
            deciding["api"] = self.settings.api.deciding
        for name, usual in LATER.items():
            if deciding.get(name) == usual:
                del deciding[name]
        return {**deciding, "protocol": PROTOCOL} if self.type.chats else deciding

    def identity(self, model_identity: str) -> str:
        """All about it that decides scores."""
        text = json.dumps([self.deciding, self.prompt_hash], sort_keys=True)
        return f"{model_identity} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def load_judge(settings: JudgeSettings, folder: Path | None = None) -> Judge:
    """A judge with its prompt file, looked up in `folder`, then in config/judges.

    Raises:
        InputError: names the file, the key, the value and what would be right.
    """
    kind = JUDGES[settings.type]
    for module, package in kind.packages.items():
        if find_spec(module) is None:
            raise InputError(
                f"judge.type: {settings.type} needs a package: pip install {package} (its version "
                "is in requirements-extra.txt)."
            )
    if kind.prompts is not None:
        return Judge(_with_usual(settings, kind.prompts, kind), kind.prompts, "none")
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
    from core.yaml_files import parse_yaml  # main alone reads such files; workers do without yaml

    try:
        prompts = JudgePrompts.model_validate(parse_yaml(text))
    except ValidationError as error:
        raise InputError(f"{file}: {describe(error)}") from None
    except ValueError as error:
        raise InputError(f"{file}: {error}.") from None
    prompts = with_official_texts(prompts, file)
    texts = [form.text for form in prompts.forms]
    for form in prompts.forms:
        unheard = [n for n in prompts.spoken if f"{{{n}}}" in form.text and n not in form.hears]
        if unheard:
            raise InputError(
                f"{file}: {form.name} names {{{unheard[0]}}}; list {unheard[0]} under its `hears`."
            )
    problem = placeholder_problem(
        [(call.name, form.text) for call in prompts.calls for form in call.forms],
        prompts.fields,
        prompts.spoken,
    )
    if problem is not None:
        raise InputError(f"{file}: {problem}")
    missing = kind.missing_in(prompts)
    if missing is not None:
        raise InputError(f"{file}: {settings.type} needs {missing} in every call.")
    given = [name for form in prompts.forms for name in form.gives]
    if not kind.from_zero and prompts.geometric_means_of(given):
        raise InputError(
            f"{file}: overall.combine: a geometric mean needs scores from 0 on, and those of "
            f"{settings.type} may be below; give combine: mean."
        )
    if not kind.varies and prompts.spoken:
        raise InputError(
            f"{file}: answer: words is for judges that answer in words, not {settings.type}."
        )
    if not kind.varies and any(form.apart for form in prompts.forms):
        raise InputError(f"{file}: apart is for judges that answer in words, not {settings.type}.")
    read_elsewhere = json.dumps(texts) if "text_from" in text or prompts.placeholders else ""
    prompt_hash = hashlib.sha256((text + read_elsewhere).encode()).hexdigest()[:16]
    return Judge(_with_usual(settings, prompts, kind), prompts, prompt_hash)


def _with_usual(settings: JudgeSettings, prompts: JudgePrompts, kind: JudgeType) -> JudgeSettings:
    """The settings, with what they leave open as the prompt file has it, then as is usual."""
    usual: dict[str, Any] = {"num_pass": 1}
    if kind.usual_temperature is not None:
        usual["temperature"] = kind.usual_temperature
    usual |= prompts.sampling.model_dump(exclude_none=True)
    filled = {n: v for n, v in usual.items() if getattr(settings, n) is None}
    settings = settings.model_copy(update=filled)
    if (settings.num_pass or 1) > 1 and (not kind.varies or settings.temperature == 0):
        why = (
            "needs a temperature above 0: a greedy judge says the same in every pass"
            if kind.varies
            else f"is for judges that answer in words; {settings.type} says the same in every pass"
        )
        raise InputError(f"judge.num_pass: {settings.num_pass} {why}.")
    return settings


def parse_answer(raw: str, call: JudgeCall) -> dict[str, float] | None:
    """The parts of an answer, or None: nothing is guessed from an answer out of form."""
    return call.read(raw).parts
