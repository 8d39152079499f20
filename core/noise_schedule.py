"""The setting `scheduler`: how a model's own noise schedule is changed.

Distilled models and their LoRAs are made for a schedule of their own. What is set here is laid over
the configuration of the checkpoint's scheduler; `class` takes another one of diffusers' classes.
"""

import json
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator

from core.validation import shown

CLASS = "class"
MOST_KEYS, MOST_NUMBERS = 40, 1000
# Those that go with pipelines of pictures: of flow-matching models, whose pipelines give sigmas and
# a shift by the picture's size, and of the others.
FLOW_CLASSES = ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler")
OTHER_CLASSES = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler",
    "LCMScheduler", "PNDMScheduler", "TCDScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
CLASSES = FLOW_CLASSES + OTHER_CLASSES


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    if len(settings) > MOST_KEYS:
        raise ValueError(f"has {len(settings)} keys, more than any scheduler")
    for key, value in settings.items():
        if not key.isidentifier() or key.startswith("_"):
            raise ValueError(f"{shown(key)} is no setting of a scheduler")
        if key == CLASS:
            _check_class(value)
        elif not _is_plain(value):
            raise ValueError(
                f"{key}: expected a number, true, false, null, a word or a list of numbers "
                f"(found {shown(value)})"
            )
    return settings


def _check_class(name: Any) -> None:
    if name in CLASSES:
        return
    near = get_close_matches(str(name), CLASSES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(CLASSES)}"
    raise ValueError(f"class: unknown scheduler {shown(name)}{hint}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= MOST_NUMBERS and all(map(_is_number, value))
    if isinstance(value, str):
        return value.replace("-", "_").isidentifier()
    return value is None or isinstance(value, bool) or _is_number(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


SchedulerSettings = Annotated[dict[str, Any], AfterValidator(_checked)]
"""By the names that diffusers' scheduler classes have for them; empty for the checkpoint's own."""


def as_identity(settings: Mapping[str, Any]) -> str:
    """The settings in one word, the same for the same ones: 3 is 3.0."""
    numbers = {k: float(v) if type(v) is int else v for k, v in settings.items()}
    return json.dumps(numbers, sort_keys=True, separators=(",", ":"))
