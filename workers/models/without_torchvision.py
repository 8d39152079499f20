"""Parts of pipelines that want torchvision, put together without it."""

from typing import Any

from diffusers import DiffusionPipeline
from transformers.utils import is_torchvision_available

from workers.processors import load_processor, needs_torchvision


def parts_without_torchvision(source: str, revision: str | None) -> dict[str, Any]:
    """A vision-language text encoder's processor, which otherwise wants torchvision."""
    if is_torchvision_available():
        return {}
    config = DiffusionPipeline.load_config(source, revision=revision)
    parts = {}
    if config.get("processor", [None])[0] == "transformers":
        parts["processor"] = load_processor(source, revision, "processor")
    if needs_torchvision((config.get("tokenizer") or [None, None])[1]):
        parts["tokenizer"] = None  # diffusers would refuse another class; it comes afterwards
    return parts
