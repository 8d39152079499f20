"""Which models edit and score when the settings say `auto`."""

from collections.abc import Sequence

from core.benchmark.settings import BenchmarkSettings, ModelJudgeDefaults
from core.devices import Device
from core.errors import InputError
from core.model_choice import Automatic, ModelChoice, choose_model
from core.settings import PROJECT_DIR, JudgeSettings, best_match

GIB = 1024**3
LOGITS_PROMPTS = "viescore_logits.yaml"
DEMO_EDITOR = PROJECT_DIR / "demo_model" / "editor"
DEMO_JUDGE = PROJECT_DIR / "demo_model" / "judge"
# 20B transformer + 7B text encoder, and 8B, in bf16, with room to work in.
EDITOR = Automatic("Qwen/Qwen-Image-Edit-2511", 72 * GIB, DEMO_EDITOR, "demo-editor")
JUDGE = Automatic("Qwen/Qwen3-VL-8B-Instruct", 24 * GIB, DEMO_JUDGE, "demo-judge")


def judge_model(
    settings: BenchmarkSettings, devices: Sequence[Device]
) -> tuple[ModelChoice, JudgeSettings]:
    """The judge's model, and its settings with what the model's own defaults change.

    Raises:
        InputError: neither a model folder nor a hub id, or no model of the judge's type.
    """
    judge = settings.judge
    if judge.type == "clip" and judge.model == "auto":
        raise InputError("judge.model: auto is a chat model; for clip name a CLIP or SigLIP.")
    if judge.type == "vlm_logits" and judge.prompts is None:
        judge = judge.model_copy(update={"prompts": LOGITS_PROMPTS})
    model = choose_model(
        judge.model,
        judge.revision,
        judge.dtype,
        devices,
        JUDGE,
        index_file="config.json",
        variant=judge.variant,
        memory=judge.memory,
    )
    own = best_match(settings.judge_model_defaults, model.path_or_id) or ModelJudgeDefaults(
        match=""
    )
    filled = {
        name: getattr(own, name)
        for name in ("prompts", "max_new_tokens", "image_area")
        if getattr(judge, name) is None and getattr(own, name) is not None
    }
    return model, judge.model_copy(update=filled)
