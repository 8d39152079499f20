"""LoRAs for compiled blocks: one adapter, whose weights are exchanged in place.

To another adapter, or to another number for its strength, compiled blocks would have to be
compiled again; to other values in the same tensors they need not. Text encoders are not
compiled, and diffusers cannot exchange their layers in place: with such layers, or with DoRA or
LoKr, an adapter goes as a whole when the next one comes.
"""

import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from core.errors import LoraError
from workers.errors import blames_no_file, classify
from workers.lora_adapter import LoraReader, has_variants, layers_with, off_the_file, put_on
from workers.lora_manager import LoraCounts, Refusals, check_unchanged, fewer
from workers.lora_weights import LoraWeights
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
        self._reader = LoraReader(pipeline, log)
        self._refusals = Refusals(pipeline)
        self._files: OrderedDict[str, LoraWeights] = OrderedDict()  # by sha256
        self._in_slot: str | None = None
        self._exchangeable = False  # what is in the slot
        self._rank = 0
        self._active: str | None = None
        # PEFT's layers, and each one's scale at strength 1.
        self._scales: list[tuple[Any, float]] = []
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
        for layer, at_one in self._scales:
            scale = layer.scaling[SLOT]
            if isinstance(scale, torch.Tensor):  # which compiled blocks hold on to
                scale.fill_(strength * at_one)
            else:
                layer.scaling[SLOT] = strength * at_one

    def shrink(self) -> tuple[int, int]:
        self._capacity = fewer(self._capacity, len(self._files))
        idle = [sha256 for sha256 in self._files if sha256 != self._in_slot]
        for sha256 in idle:
            del self._files[sha256]
        return len(idle), self._capacity

    def _bring(self, sha256: str, path: Path) -> None:
        """Into the slot."""
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise LoraError(f"{type(self._pipeline).__name__} takes no LoRAs.")
        if sha256 not in self._files:
            check_unchanged(path, sha256)
            with self._refusals.noted(sha256, path):
                state = off_the_file(load_file(path, device=str(self._device)))
                weights = self._reader.understand(path, state)
            while len(self._files) >= self._capacity:
                self._files.popitem(last=False)
            self._files[sha256] = weights
            self._counts.loads += 1
        self._files.move_to_end(sha256)
        if self._in_slot == sha256:
            return
        try:
            with self._refusals.noted(sha256, path):
                self._put(self._files[sha256], path)
        except Exception as error:
            del self._files[sha256]
            if classify(error)[0] != "device":  # a lost context has nothing to be cleaned
                self._empty()
            raise
        self._in_slot = sha256

    def _put(self, weights: LoraWeights, path: Path) -> None:
        exchangeable = not has_variants(weights)
        if exchangeable and self._exchangeable and weights.rank <= self._rank:
            try:
                self._load(weights, hotswap=True)
                return
            except (RuntimeError, ValueError, NotImplementedError) as error:
                if blames_no_file(error):
                    raise
                self._log("DEBUG", f"LoRA {path.name} takes a slot of its own: {error}")
        started = time.monotonic()
        self._empty()
        self._rank = max(LEAST_RANK, weights.rank)
        self._denoiser.enable_lora_hotswap(target_rank=self._rank, check_compiled="ignore")
        self._load(weights, hotswap=False)
        self._exchangeable = exchangeable and not self._beyond_denoiser()
        seconds = time.monotonic() - started
        self._log("DEBUG", f"LoRA slot of rank {self._rank} made in {seconds:.2f} s")

    def _load(self, weights: LoraWeights, hotswap: bool) -> None:
        self._scales = put_on(self._pipeline, weights, SLOT, self._rank, hotswap)

    def _beyond_denoiser(self) -> bool:
        denoiser = set(self._denoiser.modules())
        return any(layer not in denoiser for layer in layers_with(self._pipeline, SLOT).values())

    def _empty(self) -> None:
        if self._in_slot is not None or self._pipeline.get_list_adapters():
            self._pipeline.unload_lora_weights()
        self._in_slot, self._active, self._scales = None, None, []
        self._exchangeable = False
        # Left behind by a load that failed, it would refuse the next one.
        self._denoiser._prepare_lora_hotswap_kwargs = None
