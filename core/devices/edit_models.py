"""Which models edit and score when the settings say `auto`."""

import math
from collections.abc import Sequence
from dataclasses import replace

from core.devices.automatic_model import Automatic
from core.devices.device import Device
from core.devices.model_choice import SIMULATED, ModelChoice, choose_model
from core.devices.working_memory import Demand
from core.edit_settings import EditModels, ModelJudgeDefaults
from core.errors import InputError
from core.index_files import MODEL_INDEX
from core.judge import JUDGES_DIR
from core.judge_type import JUDGES
from core.paths import printable
from core.settings import PROJECT_DIR, JudgeSettings, best_match

DEMO_EDITOR = PROJECT_DIR / "demo_model" / "editor"
DEMO_JUDGE = PROJECT_DIR / "demo_model" / "judge"
EDITOR_DEMAND = Demand(sources=1)
# One edit at a time, source and result shown: of more at once as many are judged as fit.
JUDGE_DEMAND = Demand(sources=2, guided=False, new_tokens=512)
EDITOR = Automatic("Qwen/Qwen-Image-Edit-2511", DEMO_EDITOR, "demo-editor", EDITOR_DEMAND)
JUDGE = Automatic("Qwen/Qwen3-VL-8B-Instruct", DEMO_JUDGE, "demo-judge", JUDGE_DEMAND)


def judge_demand(judge: JudgeSettings) -> Demand:
    """What the settings ask of a judge at once."""
    side = math.isqrt(judge.image_area or JUDGE_DEMAND.pixels)
    asked = judge.max_new_tokens or JUDGE_DEMAND.new_tokens
    tokens = JUDGES[judge.type].new_tokens or asked
    return replace(JUDGE_DEMAND, width=side, height=side, new_tokens=tokens)


def judge_model(
    settings: EditModels, devices: Sequence[Device]
) -> tuple[ModelChoice, JudgeSettings]:
    """The judge's model, and its settings with what the model's own defaults change.

    Raises:
        InputError: neither a model folder nor a hub id, or no model of the judge's type.
    """
    judge = settings.judge
    kind = JUDGES[judge.type]
    if not kind.loads and judge.model != SIMULATED:
        model = served_judge(judge)
        return model, judge_settings(settings, model)
    if not kind.chats and judge.model == "auto":
        raise InputError(
            f"judge.model: auto is a chat model; for {judge.type} name {kind.networks}."
        )
    if not kind.chats and judge.memory in ("fp8", "int8", "nf4"):
        raise InputError(
            f"judge.memory: {judge.memory} is for chat models; other networks cannot be stored in "
            "fewer bits here, and they are small: use full."
        )
    model = choose_model(
        judge.model,
        judge.revision,
        judge.dtype,
        devices,
        JUDGE,
        index_file=MODEL_INDEX,
        variant=judge.variant,
        memory=judge.memory,
        role="score",
    )
    if kind.named_by and all(getattr(judge, n) in (None, "auto") for n in kind.named_by):
        names = " or ".join(f"judge.{name}" for name in kind.named_by)
        raise InputError(
            f"judge.model: auto is no judge of type {judge.type}; name one by {names}."
        )
    return with_lora(model, judge), judge_settings(settings, model)


def with_lora(model: ModelChoice, judge: JudgeSettings) -> ModelChoice:
    """The judge's model with the LoRA that the settings name, if they do.

    Raises:
        InputError: there is no such LoRA, or none that fits how the model is loaded.
    """
    if judge.lora is None:
        return model
    kind = JUDGES[judge.type]
    if not (kind.loads and kind.chats):
        raise InputError(f"judge.lora: a judge of type {judge.type} takes none.")
    if judge.memory in ("fp8", "int8", "nf4"):
        raise InputError(
            f"judge.memory: {judge.memory} stores weights in fewer bits, into which judge.lora "
            "cannot be put; full and the offload modes take it."
        )
    from core.checkpoints.judge_lora import find_judge_lora  # only where there is one

    return model.drawing([find_judge_lora(judge.lora, judge.lora_revision)], {})


def served_judge(judge: JudgeSettings) -> ModelChoice:
    """A judge's model that is served elsewhere.

    Raises:
        InputError: the settings do not say which, or where, or its key is not there.
    """
    if judge.api.base_url is None:
        raise InputError(
            f"judge.api.base_url: a judge of type {judge.type} needs the address of its server, "
            "such as http://127.0.0.1:8000/v1."
        )
    if judge.model == "auto":
        raise InputError(
            f"judge.model: for a judge of type {judge.type} name the model as its server does."
        )
    judge.api.key()
    address = judge.api.base_url
    reason = f"Model: {judge.model}, served at {address}."
    return ModelChoice(address, f"{printable(judge.model)}@{address}", reason)


def judging_devices(judge: JudgeSettings, devices: Sequence[Device]) -> list[Device]:
    """Devices of the judge's workers. Where they only ask a server it is one, without a GPU."""
    if JUDGES[judge.type].loads or judge.model == SIMULATED:
        return list(devices)
    return [Device("cpu", 0, "", letter="-api")]


def judge_settings(settings: EditModels, model: ModelChoice) -> JudgeSettings:
    """The judge's settings with what its type and its model's own defaults fill in."""
    judge = settings.judge
    kind = JUDGES[judge.type]
    if judge.prompts is None and kind.usual_prompts is not None:
        judge = judge.model_copy(update={"prompts": kind.usual_prompts})
    own = best_match(settings.judge_model_defaults, model.path_or_id) or ModelJudgeDefaults(
        match=""
    )
    filled = {
        name: getattr(own, name)
        for name in ("prompts", "max_new_tokens", "image_area")
        if getattr(judge, name) is None and getattr(own, name) is not None
    }
    if judge.prompts is None and own.prompts is None:
        filled["prompts"] = _shipped(settings.usual_protocol)
    return judge.model_copy(update=filled)


def _shipped(protocol: str | None) -> str | None:
    """A shipped prompt file by its place, as another file of its name may lie beside a config."""
    if protocol is None or not (JUDGES_DIR / protocol).is_file():
        return protocol
    return str(JUDGES_DIR / protocol)
