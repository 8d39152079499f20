"""Keeps LoRA adapters in memory and switches between them."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.errors import LoraError
from workers.errors import blames_no_file, classify


@dataclass
class LoraCounts:
    """What the manager did since it was last asked."""

    loads: int = 0
    switches: int = 0


class Loras(Protocol):
    """What a pipeline does with LoRAs."""

    @property
    def resident(self) -> list[str]:
        """Content hashes of those in memory, the least recently used first."""

    def take_counts(self) -> LoraCounts:
        """Loads and switches since the last call."""

    def use(self, sha256: str | None, path: str | None, strength: float) -> None:
        """Make exactly this LoRA count for the next picture; None for none.

        Raises:
            LoraError: the file changed since it was checked, or does not fit the model. What
                memory, device or disk are to blame for is raised as it is.
        """

    def shrink(self) -> int:
        """Drop every LoRA that is not in use; returns how many."""


class LoraManager:
    """Up to `capacity` adapters of one pipeline, known by content hash, least recently used out.

    The strength belongs to the task, not to the cache: it is set for every picture. Without
    a LoRA the adapters are disabled, which leaves exactly the base layers' arithmetic.
    """

    def __init__(self, pipeline: Any, capacity: int, log: Callable[[str, str], None]) -> None:
        self._pipeline = pipeline
        self._capacity = capacity
        self._log = log
        self._resident: OrderedDict[str, str] = OrderedDict()  # sha256 -> adapter name
        self._active: str | None = None
        self._enabled = True
        self._counts = LoraCounts()

    @property
    def resident(self) -> list[str]:
        return list(self._resident)

    def take_counts(self) -> LoraCounts:
        counts, self._counts = self._counts, LoraCounts()
        return counts

    def use(self, sha256: str | None, path: str | None, strength: float) -> None:
        if sha256 is None or path is None or strength == 0:
            self._disable()
            return
        if sha256 not in self._resident:
            self._load(sha256, Path(path))
        self._resident.move_to_end(sha256)
        if not self._enabled:
            self._pipeline.enable_lora()
            self._enabled = True
        self._pipeline.set_adapters([self._resident[sha256]], [strength])
        self._counts.switches += self._active != sha256
        self._active = sha256

    def shrink(self) -> int:
        idle = [sha256 for sha256 in self._resident if sha256 != self._active]
        for sha256 in idle:
            self._drop(sha256)
        return len(idle)

    def _disable(self) -> None:
        if self._resident and self._enabled:
            self._pipeline.disable_lora()
            self._enabled = False
        self._active = None

    def _load(self, sha256: str, path: Path) -> None:
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise LoraError(f"{type(self._pipeline).__name__} takes no LoRAs.")
        check_unchanged(path, sha256)
        while len(self._resident) >= self._capacity:
            self._drop(next(iter(self._resident)))
        started = time.monotonic()
        name = f"lora_{sha256[:16]}"
        try:
            self._pipeline.load_lora_weights(
                str(path.parent),
                weight_name=path.name,
                adapter_name=name,
                use_safetensors=True,  # without it diffusers falls back to pickle
                local_files_only=True,
            )
            if not any(name in names for names in self._pipeline.get_list_adapters().values()):
                raise ValueError("none of its tensors belongs to this model")
        except Exception as error:
            if classify(error)[0] != "device":  # a lost context has nothing to be cleaned
                self._forget_failed(name)
            if blames_no_file(error):
                raise
            raise does_not_fit(path, self._pipeline, error) from error
        self._resident[sha256] = name
        self._counts.loads += 1
        seconds = time.monotonic() - started
        self._log(
            "DEBUG", f"LoRA {path.name} loaded in {seconds:.2f} s, {len(self._resident)} held"
        )

    def _drop(self, sha256: str) -> None:
        self._pipeline.delete_adapters(self._resident.pop(sha256))

    def _forget_failed(self, name: str) -> None:
        """A load that broke half-way may have left layers of the adapter behind."""
        try:
            self._pipeline.delete_adapters(name)
        except Exception:
            # What is half there cannot be removed by name: start from a clean pipeline.
            self._pipeline.unload_lora_weights()
            self._resident.clear()
            self._active, self._enabled = None, True


def does_not_fit(path: Path, pipeline: Any, error: Exception) -> LoraError:
    """What loading raised, in one line."""
    reason = " ".join(str(error).split())[:500]
    return LoraError(f"lora_path: {path} does not fit {type(pipeline).__name__}: {reason}")


def check_unchanged(path: Path, sha256: str) -> None:
    """Raises LoraError if the file is not the one that main checked; OSError if the disk fails."""
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise LoraError(f"lora_path: {path} cannot be read: {error.strerror}.") from None
    if found != sha256:
        raise LoraError(f"lora_path: {path} changed during the run; run the command again.")
