"""Compiles a denoiser's repeated blocks, and says so before the compiler begins."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from core.memory_modes import FACTS
from core.worker_spec import WorkerSpec
from workers.models.base import Log
from workers.models.family import denoiser_of

Mode = Literal["never", "always"]
# Versions of one block's code, of which torch allows 8. Z-Image makes up to 48: with and without
# modulation, LoRA layers, several pictures at once and a mask for shorter captions, each of them
# for a first size, a second one, and then for any.
MOST_VERSIONS = 64


def compilable(spec: WorkerSpec, log: Log) -> Mode:
    """The setting `compile`, or `never` in a memory mode whose weights change within the blocks."""
    if not spec.may_compile:
        return "never"
    if spec.device_count > 1:  # tensors change their GPU between blocks
        log("WARNING", "workers.compile: nothing is compiled where gpus_per_worker is above 1")
        return "never"
    if not FACTS[spec.memory].compiles:
        log(
            "WARNING",
            f"compile: blocks are not compiled with memory: {spec.memory}, "
            "which changes or moves their weights while they run",
        )
        return "never"
    return "always"


class Compilation:
    """Whether blocks are compiled."""

    def __init__(self, denoiser: Any, mode: Mode, log: Log) -> None:
        self._denoiser, self._log = denoiser, log
        able = bool(getattr(denoiser, "_repeated_blocks", None))
        if mode == "always" and not able:
            log("WARNING", f"{type(denoiser).__name__} names no blocks to compile")
        self.due = mode == "always" and able
        self.active = False

    def begin(self) -> None:
        """Compile the blocks, from the next call on."""
        from torch._dynamo import config

        config.recompile_limit = max(config.recompile_limit, MOST_VERSIONS)
        self._denoiser.compile_repeated_blocks(fullgraph=True)
        # Others fill captions up: for the one size that most runs have, a version for just that
        # size is faster.
        if denoiser_of(self._denoiser).any_length:
            for block in self._denoiser.modules():
                if block._compiled_call_impl is not None:
                    block._compiled_call_impl = _of_any_length(block._compiled_call_impl)
        self.due, self.active = False, True

    @contextmanager
    def announced(self, tell: Callable[[], None]) -> Iterator[None]:
        """Call `tell` once, before the first block that is compiled inside."""
        if not self.active:
            yield
            return
        from torch._dynamo.callback import callback_handler

        told: list[object] = []

        def starts(compilation: object) -> None:
            if not told:
                told.append(compilation)
                tell()

        callback_handler.register_start_callback(starts)
        try:
            yield
        finally:
            callback_handler.remove_start_callback(starts)

    def give_up(self, reason: str) -> None:
        """Run the blocks as they are, for good."""
        for module in self._denoiser.modules():
            module._compiled_call_impl = None
        self.active = False
        self._log("WARNING", f"not compiled: {reason}")


def _of_any_length(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled block that is told which sizes of its arguments vary from call to call."""
    from torch._dynamo import maybe_mark_dynamic

    def call(*args: Any, **kwargs: Any) -> Any:
        for tensor in _tensors([*args, *kwargs.values()]):
            if tensor.is_complex() and tensor.dim() == 2:  # Qwen-Image's table of positions
                maybe_mark_dynamic(tensor, 0)
            elif tensor.dim() == 3 or (tensor.dim() == 2 and tensor.dtype is torch.bool):
                maybe_mark_dynamic(tensor, 1)
        return compiled(*args, **kwargs)

    return call


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def compiler_failed(error: Exception) -> bool:
    """Whether it is the compiler that failed, and not the model."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return isinstance(error, TorchDynamoException | FailOnRecompileLimitHit)
