"""What a task that made no picture means to whoever asked for one."""

import re
from collections.abc import Mapping
from typing import Any

from apps.openai_images.errors import DO_NOT_REPEAT, INVALID, SERVER, ApiError

OF_THE_INPUT = ("input", "lora")
# A field at the beginning of an error, as the engine calls it, and as callers do.
_FIELD = re.compile(r"([a-z_]+)(?:\[\d+\])?: ")
_PARAMS = {
    "instruction": "prompt",
    "source_images": "image",
    "lora_path": "loras",
    "cfg": "true_cfg_scale",
    "width": "size",
    "height": "size",
}


def failure(result: Mapping[str, Any], hidden: Mapping[str, str]) -> ApiError:
    """The error of a task without a picture: 400 if its input was at fault, else 500.

    The input is at fault where the engine says so of it. An exception of the program or of a
    library is not the caller's, although another try would end in it, too.

    The official client repeats what ended in 500. The engine has tried again already where that
    could help, so it is told not to.

    Args:
        result: as `core.tasks.Result.as_dict`.
        hidden: what callers read in place of folders of this machine.
    """
    error = str(result.get("error") or "There is no picture.")
    for folder, shown in hidden.items():
        error = error.replace(folder, shown)
    status, cause = result.get("status"), result.get("cause")
    if status == "interrupted":
        return ApiError(410, f"No picture was drawn: {error}", "cancelled")
    if cause in OF_THE_INPUT:
        found = _FIELD.match(error)
        param = _PARAMS.get(found[1], found[1]) if found else None
        if cause == "lora":
            param = "loras"
        return ApiError(400, error, f"invalid_{cause}", param, INVALID)
    if cause == "storage":
        return ApiError(507, error, "insufficient_storage", type=SERVER, headers=DO_NOT_REPEAT)
    if cause == "model":
        return ApiError(503, error, "model_unavailable", type=SERVER)
    code = "quarantined" if status == "quarantined" else cause or "failed"
    return ApiError(500, error, code, type=SERVER, headers=DO_NOT_REPEAT)
