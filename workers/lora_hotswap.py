"""LoRAs for compiled blocks: one adapter, whose weights are exchanged in place.

To another adapter, or to another number for its strength, compiled blocks would have to be
compiled again; to other values in the same tensors they need not. Text encoders are not
compiled, and diffusers cannot exchange their layers in place: with such layers an adapter goes
as a whole when the next one comes.
"""

import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from core.errors import LoraError
from workers.errors import blames_no_file, classify
from workers.lora_manager import LoraCounts, check_unchanged, does_not_fit
from workers.models.base import Log

SLOT = "slot"  # the adapter's name
LEAST_RANK = 32  # of the slot: a larger one costs little, growing costs a compilation


class HotswapLoras:
    """`workers.lora_manager.Loras`; up to `capacity` files stay in the device's memory."""

    def __init__(
        self, pipeline: Any, denoiser: Any, capacity: int, device: torch.device, log: Log
    ) -> None:
        self._pipeline, self._denoiser = pipeline, denoiser
        self._capacity, self._device, self._log = capacity, device, log
        self._files: OrderedDict[str, dict[str, torch.Tensor]] = OrderedDict()  # by sha256
        self._in_slot: str | None = None
        self._rank = 0
        self._active: str | None = None
        # Where each layer of every part has its scale, and what that is at strength 1.
        self._scales: list[tuple[dict[str, torch.Tensor | float], float]] = []
        self._counts = LoraCounts()

    @property
    def resident(self) -> list[str]:
        return list(self._files)

    def take_counts(self) -> LoraCounts:
        counts, self._counts = self._counts, LoraCounts()
        return counts

    def use(self, sha256: str | None, path: str | None, strength: float) -> None:
        if sha256 is None or path is None:
            strength = 0.0
        elif strength != 0:
            self._bring(sha256, Path(path))
            self._counts.switches += self._active != sha256
        self._active = sha256 if strength else None
        for scaling, at_one in self._scales:
            scale = scaling[SLOT]
            if isinstance(scale, torch.Tensor):  # which compiled blocks hold on to
                scale.fill_(strength * at_one)
            else:
                scaling[SLOT] = strength * at_one

    def shrink(self) -> int:
        idle = [sha256 for sha256 in self._files if sha256 != self._in_slot]
        for sha256 in idle:
            del self._files[sha256]
        return len(idle)

    def _bring(self, sha256: str, path: Path) -> None:
        """Into the slot."""
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise LoraError(f"{type(self._pipeline).__name__} takes no LoRAs.")
        if sha256 not in self._files:
            check_unchanged(path, sha256)
            while len(self._files) >= self._capacity:
                self._files.popitem(last=False)
            try:
                self._files[sha256] = load_file(path, device=str(self._device))
            except Exception as error:
                if blames_no_file(error):
                    raise
                raise does_not_fit(path, self._pipeline, error) from error
            self._counts.loads += 1
        self._files.move_to_end(sha256)
        if self._in_slot == sha256:
            return
        try:
            self._put(self._files[sha256], path)
        except Exception as error:
            del self._files[sha256]
            if classify(error)[0] != "device":  # a lost context has nothing to be cleaned
                self._empty()
            if blames_no_file(error):
                raise
            raise does_not_fit(path, self._pipeline, error) from error
        self._in_slot = sha256

    def _put(self, state: dict[str, torch.Tensor], path: Path) -> None:
        rank = _rank(state)
        if self._in_slot is not None and rank <= self._rank and not self._beyond_denoiser():
            try:
                self._load(state, hotswap=True)
                return
            except (RuntimeError, ValueError, NotImplementedError) as error:
                if blames_no_file(error):
                    raise
                self._log("DEBUG", f"LoRA {path.name} takes a slot of its own: {error}")
        started = time.monotonic()
        self._empty()
        self._rank = max(LEAST_RANK, rank)
        self._denoiser.enable_lora_hotswap(target_rank=self._rank, check_compiled="ignore")
        self._load(state, hotswap=False)
        if not self._parts_with_slot():
            raise ValueError("none of its tensors belongs to this model")
        seconds = time.monotonic() - started
        self._log("DEBUG", f"LoRA slot of rank {self._rank} made in {seconds:.2f} s")

    def _load(self, state: dict[str, torch.Tensor], hotswap: bool) -> None:
        self._pipeline.load_lora_weights(dict(state), adapter_name=SLOT, hotswap=hotswap)
        self._scales = [
            (module.scaling, float(module.scaling[SLOT]))
            for part in self._parts_with_slot()
            for module in part.modules()
            if _has_slot(module)
        ]

    def _parts_with_slot(self) -> list[Any]:
        """Denoiser and text encoders that have layers of the adapter."""
        adapters = self._pipeline.get_list_adapters()
        return [getattr(self._pipeline, part) for part, names in adapters.items() if SLOT in names]

    def _beyond_denoiser(self) -> bool:
        return any(part is not self._denoiser for part in self._parts_with_slot())

    def _empty(self) -> None:
        if self._in_slot is not None or self._pipeline.get_list_adapters():
            self._pipeline.unload_lora_weights()
        self._in_slot, self._active, self._scales = None, None, []
        # Left behind by a load that failed, it would refuse the next one.
        self._denoiser._prepare_lora_hotswap_kwargs = None


def _has_slot(module: Any) -> bool:
    scaling = getattr(module, "scaling", None)
    return isinstance(scaling, dict) and SLOT in scaling  # attention has a number of this name


def _rank(state: dict[str, torch.Tensor]) -> int:
    """The largest of its layers: the shorter side of their factors."""
    return max(min(t.shape[:2]) for t in state.values() if t.dim() >= 2)
