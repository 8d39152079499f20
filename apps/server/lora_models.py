"""Which LoRAs of the folder the daemon's models can take."""

import os
import threading
from pathlib import Path

from core import MultiGPUImageGenerator
from core.checkpoints.lora_fit import fit_of
from core.checkpoints.safetensors_header import NotSafetensors
from core.devices.lora_compatibility import known_widths
from core.errors import MultiGPUError
from core.names import counted
from core.worker_spec import Role

DRAWS: Role = "generate"
EDITS: Role = "edit"
MOST_NAMED = 5


class LoraModels:
    """Compares LoRAs with the layers of the model that draws, and of the one that edits.

    A LoRA is left out where it cannot be of the model that draws and is not known to be of the
    editor's. What a model's files say is read when they are all here.
    """

    def __init__(self, generator: MultiGPUImageGenerator) -> None:
        self._generator = generator
        self._reading = threading.Lock()
        self._widths: dict[Role, frozenset[int]] = {}

    def refuse(self, lora: Path) -> str | None:
        """Why a LoRA is left out; None where it is not."""
        drawing = self._widths_of(DRAWS)
        if drawing is None:
            return None
        try:
            problem = fit_of(lora, drawing).problem
            if problem is None:
                return None
            editing = self._widths_of(EDITS)
            if editing is not None and fit_of(lora, editing).problem is None:
                return None
        except (OSError, NotSafetensors):  # whoever lists it says so
            return None
        return f"does not fit {self.model}: {problem}."

    @property
    def model(self) -> str:
        """The model that draws, as the user knows it."""
        return self._generator.model.shown

    def _widths_of(self, role: Role) -> frozenset[int] | None:
        with self._reading:
            if role not in self._widths:
                try:
                    found = known_widths(self._generator.model_of(role))
                except MultiGPUError:  # it cannot be used as it is set, which its tasks are told
                    found = None
                if found is None:
                    return None
                self._widths[role] = found
            return self._widths[role]


def left_out(names: list[str], folder: Path, model: str) -> str:
    """A line about LoRAs that are not offered."""
    shown = ", ".join(names[:MOST_NAMED])
    shown += f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (
        f"Not offered, as made for another model than {model}: {counted(len(names), 'LoRA')} of "
        f"{os.path.normpath(folder)} ({shown})."
    )
