"""Variants of a model's weights, such as fp16, as files in its folder are named after them."""

import re
from pathlib import Path

from core.errors import InputError

# As diffusers and transformers save them: model.fp16.safetensors, model.fp16-00001-of-00002….
_WEIGHTS = re.compile(r"[^.]+(?:\.(?P<variant>[\w-]+?))?(-\d{5}-of-\d{5})?\.safetensors")


def check_variant(folder: Path, variant: str | None) -> None:
    """Raises InputError where a part of the model has no weights of the variant that is asked for.

    A part that has weights without any variant, too, is served by these, as diffusers does.
    """
    by_part: dict[Path, set[str | None]] = {}
    for file in folder.rglob("*.safetensors"):
        named = _WEIGHTS.fullmatch(file.name)
        if named is not None:
            by_part.setdefault(file.parent, set()).add(named["variant"])
    found = sorted({v for variants in by_part.values() for v in variants if v is not None})
    if variant is not None and by_part and variant not in found:
        has = f"it has {', '.join(found)}" if found else "its weights are of none: leave it out"
        raise InputError(f"variant: {folder} has no weights of variant {variant!r}; {has}.")
    for part, variants in sorted(by_part.items()):
        if not variants & {None, variant}:
            of = ", ".join(sorted(v for v in variants if v is not None))
            asked = "no variant is" if variant is None else f"{variant!r} is"
            raise InputError(f"variant: {part} has weights of variant {of} alone, and {asked} set.")
