"""Processors of vision-language models where torchvision is missing.

A processor such as `Qwen3VLProcessor` also wants a video processor, and that wants
torchvision, which has no build for every torch. Nothing here looks at videos: without
torchvision the processor is put together from its tokenizer and its Pillow image processor.
"""

import json
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
    name = _processor_class(folder, model)
    return videoless_processor(name, image_processor, tokenizer, _chat_template(folder, tokenizer))


def _folder(model: str, revision: str | None, subfolder: str) -> Path:
    if Path(model).is_dir():
        return Path(model) / subfolder
    wanted = [f"{subfolder}/*"] if subfolder else ["*.json", "*.txt", "*.jinja"]  # no weights
    return Path(snapshot_download(model, revision=revision, allow_patterns=wanted)) / subfolder


def _processor_class(folder: Path, model: str) -> str:
    for name in _PROCESSOR_FILES:
        file = folder / name
        if file.is_file():
            found = json.loads(file.read_text("utf-8")).get("processor_class")
            if found and hasattr(transformers, found):
                return str(found)
    raise InputError(f"model: {model} names no processor that transformers has.")


class _Videoless:
    """Laid over a processor class: None for a video processor, to load and to save."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
        if name == "video_processor" and argument is None:
            return type(None)
        return super().check_argument_for_proper_class(name, argument)  # type: ignore[misc]

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """In files that both this module and transformers with torchvision read."""
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
    name: str, image_processor: Any, tokenizer: Any, chat_template: str | None = None
) -> Any:
    """A processor of the class `name` of transformers that needs no torchvision."""
    kind = _without_video(getattr(transformers, name))
    return kind(image_processor, tokenizer, None, chat_template=chat_template)


def _chat_template(folder: Path, tokenizer: Any) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template: str | None = tokenizer.chat_template
    return template
