"""LoRAs for compiled blocks: one adapter, whose weights are exchanged in place.

To another adapter, or to another number for its strength, compiled blocks would have to be
compiled again; to other values in the same tensors they need not. So a stack of plain LoRAs comes
as one whose factors stand side by side, which changes the model alike. Text encoders are not
compiled, and diffusers cannot exchange their layers in place: with such layers, or with DoRA or
LoKr, an adapter goes as a whole when the next one comes, and a stack's come side by side.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from core.errors import LoraError
from core.lora_stack import CheckedLora
from workers.errors import blames_no_file, classify
from workers.lora_adapter import (
    LoraReader,
    activate,
    has_variants,
    layers_with,
    off_the_file,
    put_on,
)
from workers.lora_manager import LoraCounts, Loras, Refusals, check_unchanged, fewer, leaving
from workers.lora_pins import Pins
from workers.lora_weights import LoraWeights, side_by_side
from workers.models.base import Log

SLOT = "slot"  # the adapter's name; of a stack's others it is the beginning
LEAST_RANK = 32  # of the slot: a larger one costs little, growing costs a compilation


class HotswapLoras(Loras):
    """Exchanges LoRAs in place; up to `capacity` files, or those of one task, stay in memory."""

    def __init__(
        self, pipeline: Any, denoiser: Any, capacity: int, device: torch.device, log: Log
    ) -> None:
        self._pipeline, self._denoiser = pipeline, denoiser
        self._capacity, self._device, self._log = capacity, device, log
        self._reader = LoraReader(pipeline, log)
        self._refusals = Refusals(pipeline)
        self._files: OrderedDict[str, LoraWeights] = OrderedDict()  # by sha256
        self._pins = Pins(log)
        # Each file's hash, and its strength where that is in the numbers themselves.
        self._in_slot: tuple[tuple[str, float | None], ...] = ()
        self._merged = False  # it is a stack as one LoRA
        self._exchangeable = False  # what is in the slot
        self._rank = 0
        self._active: frozenset[str] = frozenset()
        # By adapter: PEFT's layers, and each one's scale at strength 1.
        self._scales: dict[str, list[tuple[Any, float]]] = {}
        self._counts = LoraCounts()

    @property
    def resident(self) -> list[str]:
        return list(self._files)

    def take_counts(self) -> LoraCounts:
        counts, self._counts = self._counts, LoraCounts()
        return counts

    def use_stack(self, stack: Sequence[CheckedLora]) -> None:
        wanted = frozenset(lora.sha256 for lora in stack)
        if stack:
            self._bring(stack, wanted)
            self._counts.switches += self._active != wanted
        self._active = wanted
        strengths = [lora.strength for lora in stack] or [0.0] * len(self._scales)
        if len(stack) > 1 and self._merged:
            strengths = [1.0]
        for (name, layers), strength in zip(self._scales.items(), strengths, strict=True):
            _set_strength(name, layers, strength)

    def shrink(self) -> tuple[int, int]:
        self._capacity = fewer(self._capacity, len(self._files))
        in_slot = {sha256 for sha256, _ in self._in_slot}
        idle = [sha256 for sha256 in self._files if sha256 not in in_slot]
        for sha256 in idle:
            del self._files[sha256]
        self._pins.give_up(idle)
        return len(idle), self._capacity

    def hold(self, sha256: str, path: Path, pinned: bool) -> None:
        """Read a file; the task that uses it exchanges it with what is in the slot."""
        if pinned:
            self._pins.check_room(sha256, self._capacity)
        self._check_takes_loras()
        self._fetch(sha256, path, frozenset({sha256}))
        if pinned:
            self._pins.add(sha256, str(path))
        else:
            self._pins.remove(sha256)

    def let_go(self, sha256: str) -> None:
        """Forget a file. Its numbers stay in the slot, without effect, until others come."""
        self._pins.remove(sha256)
        self._files.pop(sha256, None)

    def _check_takes_loras(self) -> None:
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise LoraError(f"{type(self._pipeline).__name__} takes no LoRAs.")

    def _fetch(self, sha256: str, path: Path, wanted: frozenset[str]) -> None:
        """Have a file in memory, as the one that was used last."""
        if sha256 not in self._files:
            weights = self._read(sha256, path)
            self._make_room(1, wanted)
            self._files[sha256] = weights
            self._counts.loads += 1
        self._files.move_to_end(sha256)

    def _bring(self, stack: Sequence[CheckedLora], wanted: frozenset[str]) -> None:
        """Put the LoRAs of one task into the adapter slot."""
        self._check_takes_loras()
        for lora in stack:
            self._fetch(lora.sha256, Path(lora.path), wanted)
        self._make_room(0, wanted)
        files = [self._files[lora.sha256] for lora in stack]
        merged = len(files) > 1 and not any(map(has_variants, files))
        content = tuple((lora.sha256, lora.strength if merged else None) for lora in stack)
        if self._in_slot == content:
            return
        try:
            with self._refusals.noted("+".join(sorted(wanted)), " + ".join(x.path for x in stack)):
                strengths = [lora.strength for lora in stack]
                self._put([side_by_side(files, strengths)] if merged else files)
        except Exception as error:
            for sha256 in wanted.difference(self._pins):
                del self._files[sha256]
            if classify(error)[0] != "device":  # a lost context has nothing to be cleaned
                self._empty()
            raise
        self._in_slot, self._merged = content, merged

    def _read(self, sha256: str, path: Path) -> LoraWeights:
        check_unchanged(path, sha256)
        with self._refusals.noted(sha256, path):
            state = off_the_file(load_file(path, device=str(self._device)))
            return self._reader.understand(path, state)

    def _make_room(self, coming: int, wanted: frozenset[str]) -> None:
        """Drop what was used longest ago, but nothing that is `wanted` or pinned."""
        for sha256 in leaving(self._files, coming, self._capacity, wanted.union(self._pins)):
            del self._files[sha256]

    def _put(self, parts: Sequence[LoraWeights]) -> None:
        exchangeable = len(parts) == 1 and not has_variants(parts[0])
        if exchangeable and self._exchangeable and parts[0].rank <= self._rank:
            try:
                self._load(parts[0], SLOT, hotswap=True)
                return
            except (RuntimeError, ValueError, NotImplementedError) as error:
                if blames_no_file(error):
                    raise
                self._log("DEBUG", f"a LoRA takes a slot of its own: {error}")
        started = time.monotonic()
        self._empty()
        self._rank = max(LEAST_RANK, *(part.rank for part in parts))
        for place, part in enumerate(parts):
            if part is parts[-1]:  # when it is there, all scales become tensors
                options = {"target_rank": self._rank, "check_compiled": "ignore"}
                self._denoiser.enable_lora_hotswap(**options)
            self._load(part, f"{SLOT}_{place}" if place else SLOT, hotswap=False)
        if len(parts) > 1:
            activate(self._pipeline, list(self._scales))
        self._exchangeable = exchangeable and not self._beyond_denoiser()
        seconds = time.monotonic() - started
        self._log("DEBUG", f"LoRA slot of rank {self._rank} made in {seconds:.2f} s")

    def _load(self, weights: LoraWeights, name: str, hotswap: bool) -> None:
        self._scales[name] = put_on(self._pipeline, weights, name, self._rank, hotswap)

    def _beyond_denoiser(self) -> bool:
        denoiser = set(self._denoiser.modules())
        return any(layer not in denoiser for layer in layers_with(self._pipeline, SLOT).values())

    def _empty(self) -> None:
        if self._in_slot or self._pipeline.get_list_adapters():
            self._pipeline.unload_lora_weights()
        self._in_slot, self._active, self._scales = (), frozenset(), {}
        self._merged = self._exchangeable = False
        # Left behind by a load that failed, it would refuse the next one.
        self._denoiser._prepare_lora_hotswap_kwargs = None


def _set_strength(name: str, layers: Sequence[tuple[Any, float]], strength: float) -> None:
    for layer, at_one in layers:
        scale = layer.scaling[name]
        if isinstance(scale, torch.Tensor):  # which compiled blocks hold on to
            scale.fill_(strength * at_one)
        else:
            layer.scaling[name] = strength * at_one
