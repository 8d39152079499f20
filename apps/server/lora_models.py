"""Which LoRAs of the folder the daemon's models can take."""

import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
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

    A LoRA is left out where it cannot be of the model that draws and is not known to be of the
    editor's. What a model's files say is read when they are all here.
    """

    def __init__(self, generator: MultiGPUImageGenerator) -> None:
        self._generator = generator
        self._looking = threading.Lock()
        self._widths: dict[Role, frozenset[int]] = {}
        self._look_again: dict[Role, float] = {}  # at a model whose files are not all here
        self._problems: dict[tuple[Role, Path, int, float], str | None] = {}

    def refuse(self, lora: Path, size: int, modified: float) -> str | None:
        """Why a LoRA is left out; None where it is not.

        Args:
            size, modified: of its file, which is read anew where they have changed.
        """
        with self._looking:
            problem = self._problem(DRAWS, lora, size, modified)
            if problem is None:
                return None
            if EDITS in self._known() and self._problem(EDITS, lora, size, modified) is None:
                return None
            return f"does not fit {self.model}: {problem}."

    @property
    def model(self) -> str:
        """The model that draws, as the user knows it."""
        return self._generator.model.shown

    def _problem(self, role: Role, lora: Path, size: int, modified: float) -> str | None:
        """Why a LoRA cannot be of a model; None where it may be."""
        if role not in self._known((role,)):
            return None
        key = (role, lora, size, modified)
        if key not in self._problems:
            try:
                self._problems[key] = fit_of(lora, self._widths[role]).problem
            except (OSError, NotSafetensors):  # whoever lists it says so
                return None
        return self._problems[key]

    def _known(self, roles: tuple[Role, ...] = (EDITS,)) -> Collection[Role]:
        """Roles whose models' layers are known; those of some are looked for now and then."""
        now = time.monotonic()
        for role in roles:
            if role in self._widths or now < self._look_again.get(role, now):
                continue
            self._look_again[role] = now + LOOK_AGAIN
            with suppress(MultiGPUError):  # it cannot be used as it is set, as its tasks are told
                widths = known_widths(self._generator.model_of(role))
                if widths is not None:
                    self._widths[role] = widths
        return self._widths.keys()


def left_out(names: list[str], folder: Path, model: str) -> str:
    """A line about LoRAs that are not offered."""
    shown = ", ".join(names[:MOST_NAMED])
    shown += f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (
        f"Not offered, as made for another model than {model}: {counted(len(names), 'LoRA')} of "
        f"{os.path.normpath(folder)} ({shown})."
    )
