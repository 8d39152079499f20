"""Chooses files of a hub's repository that a model is loaded from: no other formats or copies.

A pipeline's are those that `DiffusionPipeline.download` chooses with `use_safetensors=True`, but
for folders that its `model_index.json` does not name. A model of transformers has a config,
tokenizer files and one set of weights beside each other.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from core.errors import ModelLoadError
from core.index_files import PIPELINE_INDEX

Given = Literal["nothing", "denoiser", "everything"]
"""Of which parts of a pipeline the user has the weights in a file."""

_ROOT_FILES = {
    # Of every pipeline, and of parts that lie in the root.
    *(PIPELINE_INDEX, "config.json", "scheduler_config.json", "pipeline.py"),
    *("chat_template.jinja", "generation_config.json", "preprocessor_config.json"),
    *("processor_config.json", "tokenizer.json", "tokenizer_config.json"),
}
_ANY_WEIGHTS = (".safetensors", ".bin", ".onnx", ".pb", ".msgpack", ".flashpack")
_STEM = "(?:diffusion_pytorch_model|pytorch_model|model)"
_SHARD = r"\d{5}-of-\d{5}"
_OTHER_FORMATS = ("*.bin", "*.msgpack", "*.onnx", "*.pb", "*.flashpack", "*.bin.index.*json")
_TOKENIZER_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken")


def pipeline_files(
    names: Collection[str],
    index: Mapping[str, Any],
    variant: str | None = None,
    given: Given = "nothing",
) -> list[str]:
    """Files of a diffusers pipeline.

    Args:
        names: of all files in the repository.
        index: what its `model_index.json` says.
        variant: of the weights, such as fp16, where parts have it.
        given: whose weights are not needed.

    Raises:
        ModelLoadError: a part has no safetensors weights, or none has the variant; without the
            model's name.
    """
    ignored = index.get("_ignore_files")
    known = set(names) - set(ignored if isinstance(ignored, list) else ())
    parts = libraries_of(index)
    wanted = {name for name in known if name in _ROOT_FILES}
    inside = {part: [n for n in known if n.startswith(f"{part}/")] for part in parts}
    if not all(inside.values()):
        inside[""] = [name for name in known if "/" not in name]  # a part that lies in the root
    without = parts_given(parts, given)
    has_variant = variant is None or given == "everything"
    for part, files in inside.items():
        own = f"{parts.get(part)}.py"
        if not any(name.endswith(_ANY_WEIGHTS) for name in files if name.count("/") < 2):
            wanted |= {n for n in files if part and not _fits(n, _OTHER_FORMATS)}
            continue
        wanted |= {n for n in files if n in (f"{part}/config.json", f"{part}/{own}")}
        if part in without:
            continue
        chosen = _weights(files, variant)
        if part and not any(name.endswith(".safetensors") for name in chosen):
            raise ModelLoadError(
                f"its {part} has no weights in safetensors format, and other formats are not read."
            )
        has_variant |= any(f".{variant}" in name for name in chosen)
        wanted |= set(chosen)
    code = index.get("_class_name")
    if isinstance(code, list):
        wanted |= known & {f"{code[0]}.py"}
    if not has_variant:
        raise ModelLoadError(f"none of its parts has weights of the variant {variant!r}.")
    return sorted(wanted)


def libraries_of(index: Mapping[str, Any]) -> dict[str, str]:
    """The library of each part that a `model_index.json` names; parts that are left out, not."""
    lists = {k: v for k, v in index.items() if isinstance(v, list) and k != "_class_name"}
    return {k: str(v[0]) for k, v in lists.items() if v and v[0] is not None}


def parts_given(parts: Collection[str], given: Given) -> set[str]:
    """Parts whose weights the user has in a file."""
    if given == "everything":
        return {*parts, ""}
    denoiser = "transformer" if "transformer" in parts else "unet"
    return {denoiser} if given == "denoiser" else set()


def _weights(files: Iterable[str], variant: str | None) -> list[str]:
    """The safetensors of one folder, and their index: of the variant, if it has that."""
    safe = [n for n in files if n.endswith((".safetensors", ".json")) and n.count("/") < 2]
    usual = rf"{_STEM}(-{_SHARD})?\.safetensors|{_STEM}\.safetensors\.index\.json"
    if variant is not None:
        v = re.escape(variant)
        ways = (
            rf"{_STEM}\.{v}(-{_SHARD})?\.safetensors|{_STEM}\.safetensors\.index\.{v}\.json",
            rf".*-{_SHARD}\.{v}\.safetensors|{_STEM}\.safetensors\.{v}\.index\.json",  # older
        )
        for way in ways:
            chosen = _named(safe, way)
            if any(name.endswith(".safetensors") for name in chosen):
                return chosen
    return _named(safe, usual)


def _named(files: Iterable[str], pattern: str) -> list[str]:
    return [name for name in files if re.fullmatch(pattern, name.rpartition("/")[2])]


def transformers_files(
    names: Collection[str], read: Callable[[str], Any], variant: str | None = None
) -> list[str]:
    """Files of a model of transformers.

    Args:
        names: of all files in the repository.
        read: gives the content of a small JSON file of it.
        variant: of the weights, such as fp16.

    Raises:
        ModelLoadError: it has no safetensors weights, or not all of them; without its name.
    """
    small = {
        name
        for name in names
        if "/" not in name and _fits(name, _TOKENIZER_FILES) and ".index." not in name
    }
    small |= {name for name in names if fnmatchcase(name, "additional_chat_templates/*.jinja")}
    mark = f".{variant}" if variant is not None else ""
    weights, index = f"model{mark}.safetensors", f"model.safetensors.index{mark}.json"
    if weights in names:
        return sorted({*small, weights})
    if index not in names:
        of_variant = f" of the variant {variant!r}" if variant is not None else ""
        raise ModelLoadError(
            f"it has no weights{of_variant} in safetensors format, and others are not read."
        )
    shards = shards_of(read(index))
    if missing := sorted(shards - set(names)):
        raise ModelLoadError(f"its repository lacks {missing[0]}, which {index} names.")
    return sorted({*small, index, *shards})


def shards_of(index: Any) -> set[str]:
    """The files that an index of weights names."""
    weights = index.get("weight_map") if isinstance(index, Mapping) else None
    return {str(name) for name in weights.values()} if isinstance(weights, Mapping) else set()


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
