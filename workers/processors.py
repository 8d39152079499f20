"""Processors of vision-language models where torchvision is missing.

A processor such as `Qwen3VLProcessor` also wants a video processor, and that wants
torchvision, which has no build for every torch. Nothing here looks at videos: without
torchvision the processor is put together from its tokenizer and its Pillow image processor.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import snapshot_download
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.utils import is_torchvision_available

from core.errors import InputError

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


def load_processor(model: str, revision: str | None = None, subfolder: str = "") -> Any:
    """The processor of a vision-language model, by hub id or folder.

    Raises:
        InputError: the model names no processor of transformers.
    """
    if is_torchvision_available():
        return AutoProcessor.from_pretrained(model, revision=revision, subfolder=subfolder)
    folder = _folder(model, revision, subfolder)
    image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    name, own = _processor_config(folder, model)
    template = _chat_template(folder, tokenizer)
    return videoless_processor(name, image_processor, tokenizer, template, own)


def needs_torchvision(name: str | None) -> bool:
    """Whether a class of transformers is missing here for want of torchvision."""
    return "torchvision" in getattr(getattr(transformers, name or "", None), "_backends", ())


def load_tokenizer_of(model: str, revision: str | None = None, subfolder: str = "") -> Any:
    """The tokenizer inside a processor, with the processor's chat template."""
    folder = _folder(model, revision, subfolder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = _chat_template(folder, tokenizer)
    return tokenizer


def _folder(model: str, revision: str | None, subfolder: str) -> Path:
    if Path(model).is_dir():
        return Path(model) / subfolder
    wanted = [f"{subfolder}/*"] if subfolder else ["*.json", "*.txt", "*.jinja"]  # no weights
    return Path(snapshot_download(model, revision=revision, allow_patterns=wanted)) / subfolder


def _processor_config(folder: Path, model: str) -> tuple[str, dict[str, Any]]:
    """The processor's class, and what stands beside it in the file that names it."""
    for name in _PROCESSOR_FILES:
        file = folder / name
        if file.is_file():
            config = json.loads(file.read_text("utf-8"))
            found = config.get("processor_class")
            if found and hasattr(transformers, found):
                return str(found), config if name == _PROCESSOR_FILES[0] else {}
    raise InputError(f"model: {model} names no processor that transformers has.")


class _Videoless:
    """Laid over a processor class: None for a video processor, to load and to save."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        if name == "video_processor" and argument is None:
            return type(None)
        return super().check_argument_for_proper_class(name, argument)  # type: ignore[misc]

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """Save in files that both this module and transformers with torchvision read."""
        parts: Any = self
        parts.tokenizer.save_pretrained(folder)
        parts.image_processor.save_pretrained(folder)
        file = Path(folder) / "preprocessor_config.json"
        config = json.loads(file.read_text("utf-8"))
        config["processor_class"] = type(self).__name__
        file.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        if parts.chat_template:
            (Path(folder) / "chat_template.jinja").write_text(parts.chat_template, "utf-8")


def _without_video(kind: type[Any]) -> type[Any]:
    # Under its own module, so that a pipeline saved with it names the class of transformers.
    return type(kind.__name__, (_Videoless, kind), {"__module__": kind.__module__})


def videoless_processor(
    name: str,
    image_processor: Any,
    tokenizer: Any,
    chat_template: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Any:
    """A processor of the class `name` of transformers that needs no torchvision.

    Args:
        config: of its own, such as LLaVA's `patch_size`; what it does not take is ignored.
    """
    kind = getattr(transformers, name)
    takes = inspect.signature(kind).parameters
    parts = {"image_processor": image_processor, "tokenizer": tokenizer}
    if "video_processor" in takes:
        kind, parts = _without_video(kind), {**parts, "video_processor": None}
    own = {k: v for k, v in (config or {}).items() if k in takes and k not in parts}
    return kind(**{**own, **parts, "chat_template": chat_template})


def _chat_template(folder: Path, tokenizer: Any) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template: str | None = tokenizer.chat_template
    return template
