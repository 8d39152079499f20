"""LoRAs as one writes them in an option or a cell: FILE, or FILE:STRENGTH."""

import re
from typing import Any

from core.errors import InputError
from core.validation import shown

_STRENGTH = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)")  # with a decimal comma, too
_BETWEEN = re.compile(r"\s*[;|]\s*")  # several in one cell
NONE = "none"


def read_lora(text: str) -> dict[str, Any]:
    """Path and strength of one LoRA, such as `style.safetensors:0.8`.

    Raises:
        InputError: it names no file.
    """
    path, colon, strength = text.strip().rpartition(":")
    if not colon or not _STRENGTH.fullmatch(strength.strip()):
        path, strength = text.strip(), ""
    if not path.strip() or path.rstrip().endswith(":"):
        raise InputError(
            f"expected a LoRA as FILE or FILE:STRENGTH, like style.safetensors:0.8 "
            f"(found {shown(text)})."
        )
    lora: dict[str, Any] = {"path": path.strip()}
    return {**lora, "strength": float(strength.replace(",", "."))} if strength else lora


def read_loras(text: str) -> list[dict[str, Any]]:
    """Several LoRAs, separated by `;` or `|`; none for "none"."""
    if text.strip().lower() == NONE:
        return []
    return [read_lora(part) for part in _BETWEEN.split(text.strip()) if part.strip()]
