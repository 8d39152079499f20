"""Which optional packages a model's worker needs for how the model was saved."""

import json
import os
from pathlib import Path

from core.devices.model_choice import ModelChoice
from core.index_files import MODEL_INDEX, PIPELINE_INDEX
from core.memory_modes import PACKAGES, installed


def saved_with(model: ModelChoice) -> frozenset[str] | None:
    """Packages that a model's weights were saved with; None if its configs are not here yet."""
    there = frozenset(package for package in PACKAGES if installed(package))
    # A file is never quantised by such a package, but the parts beside it may be.
    source = model.base_model or model.path_or_id
    if not there or not model.has_files or os.path.isfile(source):
        return frozenset()
    folder = _folder_of(source, model.revision)
    return None if folder is None else there & _methods_in(folder)


def _folder_of(source: str, revision: str | None) -> Path | None:
    """The folder of a model's files; None if they are yet to be downloaded."""
    if os.path.isdir(source):
        return Path(source)
    from huggingface_hub import try_to_load_from_cache  # only where it is needed: it takes a moment

    for name in (PIPELINE_INDEX, MODEL_INDEX):
        try:
            found = try_to_load_from_cache(source, name, revision=revision)
        except ValueError:  # no hub id: a folder that is gone by now, which its load will say
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def _methods_in(folder: Path) -> set[str]:
    """Quantisation methods that the configs of a model and its components name."""
    methods = set()
    for config in (folder / "config.json", *folder.glob("*/config.json")):
        try:
            said = json.loads(config.read_text("utf-8")).get("quantization_config")
            methods.add(said.get("quant_method") if isinstance(said, dict) else None)
        except (OSError, ValueError, AttributeError):
            continue  # who loads it says what is wrong with it
    return {method for method in methods if method in PACKAGES}
