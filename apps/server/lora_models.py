"""Which LoRAs of the folder the daemon's models can take."""

import os
import threading
import time
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
LOOK_AGAIN = 30.0  # seconds between two looks for files of a model


class LoraModels:
    """Compares LoRAs with the layers of the model that draws, and of the one that edits.

    What a model's files say is read when they are all here. Before, and where they cannot be
    read so, as where their weights are stored in fewer bits, any LoRA may be one of that model.
    """

    def __init__(self, generator: MultiGPUImageGenerator) -> None:
        self._generator = generator
        self._looking = threading.Lock()
        self._widths: dict[Role, frozenset[int]] = {}
        self._unusable: set[Role] = set()  # kinds of task for which there is no model
        self._look_again: dict[Role, float] = {}  # at a model whose files are not all here
        self._problems: dict[tuple[Role, Path, int, float], str | None] = {}

    def misfit(self, role: Role, lora: Path, size: int, modified: float) -> str | None:
        """Why tasks of a kind certainly cannot have a LoRA; None where they may.

        Args:
            size, modified: of its file, which is read anew where they have changed.
        """
        with self._looking:
            return self._misfit(role, lora, size, modified)

    def left_out(self, lora: Path, size: int, modified: float) -> str | None:
        """Why no task can have a LoRA; None where some may. Arguments are those of `misfit`."""
        with self._looking:
            drawn = self._misfit(DRAWS, lora, size, modified)
            if drawn is None:  # whether the editor takes it is asked only then
                return None
            edited = self._misfit(EDITS, lora, size, modified)
            return drawn if edited is not None or EDITS in self._unusable else None

    @property
    def model(self) -> str:
        """The model that draws, as the user knows it."""
        return self._generator.model.shown

    def _misfit(self, role: Role, lora: Path, size: int, modified: float) -> str | None:
        self._look_for(role)
        if role not in self._widths:
            return None
        key = (role, lora, size, modified)
        if key not in self._problems:
            try:
                problem = fit_of(lora, self._widths[role]).problem
            except (OSError, NotSafetensors):  # whoever lists it says so
                return None
            model = self._generator.model_of(role).shown
            self._problems[key] = problem and f"does not fit {model}: {problem}."
        return self._problems[key]

    def _look_for(self, role: Role) -> None:
        """Find out about a model's layers, now and then until they are known."""
        now = time.monotonic()
        if role in self._widths or now < self._look_again.get(role, now):
            return
        self._look_again[role] = now + LOOK_AGAIN
        self._unusable.discard(role)
        try:
            widths = known_widths(self._generator.model_of(role))
        except MultiGPUError:  # it cannot be used as it is set, as its tasks are told
            self._unusable.add(role)
            return
        if widths is not None:
            self._widths[role] = widths


def not_offered(names: list[str], folder: Path, model: str) -> str:
    """A line about LoRAs that are not offered."""
    shown = ", ".join(names[:MOST_NAMED])
    shown += f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (
        f"Not offered, as made for another model than {model}: {counted(len(names), 'LoRA')} of "
        f"{os.path.normpath(folder)} ({shown})."
    )
