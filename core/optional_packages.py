"""Which optional packages a model's worker needs: for its memory mode, or for how it was saved."""

import json
import os
from pathlib import Path

from core.memory_modes import FACTS, PACKAGES, installed
from core.model_choice import SIMULATED, ModelChoice

_INDEX_FILES = ("model_index.json", "config.json")


def packages_for(model: ModelChoice) -> frozenset[str]:
    """That its worker has to import; all there are for a model that cannot be looked into."""
    needed = {FACTS[model.memory].package} - {None}
    there = {package for package in PACKAGES if installed(package)}
    in_one_file = os.path.isfile(model.path_or_id)  # these are never quantised by such a package
    if there and model.path_or_id != SIMULATED and not in_one_file:
        folder = _folder_of(model)
        needed |= there if folder is None else there & _saved_with(folder)
    return frozenset(package for package in needed if package is not None)


def _folder_of(model: ModelChoice) -> Path | None:
    """Where its files lie; None if they are yet to be downloaded."""
    if os.path.isdir(model.path_or_id):
        return Path(model.path_or_id)
    from huggingface_hub import try_to_load_from_cache  # only where it is needed: it takes a moment

    for name in _INDEX_FILES:
        found = try_to_load_from_cache(model.path_or_id, name, revision=model.revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _saved_with(folder: Path) -> set[str]:
    """By the configs of a model and its components: how its weights were quantised."""
    methods = set()
    for config in (folder / "config.json", *folder.glob("*/config.json")):
        try:
            said = json.loads(config.read_text("utf-8")).get("quantization_config")
            methods.add(said.get("quant_method") if isinstance(said, dict) else None)
        except (OSError, ValueError, AttributeError):
            continue  # who loads it says what is wrong with it
    return {method for method in methods if method in PACKAGES}
