"""Puts a judge's LoRA into its model's weights, as they are loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from core.errors import LoraError
from core.model_lora import ModelLora

# How layers of Qwen2.5-VL were called before transformers 4.52, and since.
RENAMED = {
    "base_model.model.model.layers.": "base_model.model.model.language_model.layers.",
    "base_model.model.visual.": "base_model.model.model.visual.",
}


def merged(model: Any, lora: ModelLora) -> Any:
    """The model with the LoRA in its weights.

    Raises:
        LoraError: some of its layers are not in the model, so that it would do something else.
    """
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    config = PeftConfig.from_pretrained(str(Path(lora.path).parent))
    config.inference_mode = True
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:  # none of the layers that it names is there
        raise _misfit(lora, str(error)) from None
    weights = _with_todays_names(load_file(lora.path), {n for n, _ in adapted.named_modules()})
    result = set_peft_model_state_dict(adapted, weights)
    missing = [key for key in result.missing_keys if "lora_" in key]
    homeless = [*result.unexpected_keys, *missing]
    if homeless:
        count = len(homeless)
        raise _misfit(lora, f"{count} of its weights have no place there, such as {homeless[0]}")
    return adapted.merge_and_unload()


def _misfit(lora: ModelLora, why: str) -> LoraError:
    return LoraError(f"judge.lora: {lora.name} does not fit the judge's model: {why}.")


def _with_todays_names(weights: Mapping[str, Any], modules: set[str]) -> dict[str, Any]:
    """Weights under the names of the model's own layers, whichever version of them saved it."""
    return {_todays_name(key, modules): tensor for key, tensor in weights.items()}


def _todays_name(key: str, modules: set[str]) -> str:
    if key.partition(".lora_")[0] in modules:
        return key
    for before, since in RENAMED.items():
        if key.startswith(before):
            return since + key.removeprefix(before)
    return key
