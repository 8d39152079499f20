"""The places of one object where settings stand, and which of them wins."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import InputError
from core.intake.lora_values import only_strength, with_strengths
from core.intake.setting_values import Given, same
from core.validation import shown

GUIDANCE = ("cfg", "guidance_scale")  # one setting in two meanings: a place sets one of them
_FILES = ("lora_path", "loras")  # one, or several: a place says one of them
OF_LORAS = (*_FILES, "lora_strength")


@dataclass
class Place:
    """What one object says itself.

    Attributes:
        settings: by field of GenerateTask.
        prompts: by source, one of `spellings.PROMPTS`.
        without_lora: it switches LoRAs off; a file that it names all the same counts.
    """

    settings: dict[str, Given] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)
    without_lora: bool = False

    def put(self, name: str, given: Given) -> None:
        """Take a setting.

        Raises:
            InputError: the place says something else already.
        """
        other = {"lora_path": "loras", "loras": "lora_path"}.get(name, "")
        before = self.settings.get(other) or self.settings.setdefault(name, given)
        if not same(before.value, given.value):
            raise InputError(
                f"{before.key} is {shown(before.value)} and {given.key} is {shown(given.value)}; "
                "they are one setting: give one of them."
            )


@dataclass
class Layer:
    """All places of one object, the innermost first, and what is no setting.

    Attributes:
        passed_over: keys of settings that mean nothing here.
        others: what else the object says; not where texts of any kind stand beside its settings.
    """

    places: list[Place] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    others: dict[str, Any] = field(default_factory=dict)


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Values by field of GenerateTask; the nearest layer comes first."""
    found: dict[str, Any] = {}
    for layer in layers:
        for place in layer.places:
            taken = [name for name in GUIDANCE if name in found]
            for name, given in place.settings.items():
                if name not in OF_LORAS and not (taken and name in GUIDANCE):
                    found.setdefault(name, given.value)
    return found | lora_of(layers)


def lora_of(layers: Sequence[Layer]) -> dict[str, Any]:
    """The nearest LoRA or LoRAs, with the nearest strength that is not another LoRA's.

    A layer may change the strength of a farther layer's LoRA, not the reverse.
    """
    strength: Given | None = None
    for layer in layers:
        chosen = next((p for p in layer.places if names_files(p) or p.without_lora), None)
        for place in layer.places:
            if place is chosen or not names_files(place):
                strength = strength or place.settings.get("lora_strength")
            if place is chosen and _has_strengths(place):
                break
        if chosen is not None and "loras" in chosen.settings:
            own = strength is chosen.settings.get("lora_strength")
            return {"loras": with_strengths(chosen.settings["loras"].value, strength, own)}
        if chosen is not None and not names_files(chosen):
            return {}
        if chosen is not None:
            one = {"lora_path": chosen.settings["lora_path"].value}
            return one if strength is None else {**one, "lora_strength": only_strength(strength)}
    return {}


def names_files(place: Place) -> bool:
    return any(name in place.settings for name in _FILES)


def _has_strengths(place: Place) -> bool:
    """Whether it names several LoRAs with strengths beside them."""
    loras = place.settings.get("loras")
    return loras is not None and any("strength" in lora for lora in loras.value)
