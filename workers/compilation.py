"""Compiles a denoiser's repeated blocks, where that earns back what it costs."""

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from core.memory_modes import FACTS
from core.worker_spec import WorkerSpec
from workers.models.base import Log

Mode = Literal["never", "auto", "always"]
LIKELY_GAIN = 0.15  # of a picture's time; what is really gained is measured and logged
LIKELY_COST = 90.0  # seconds
MARGIN = 2.0  # times its cost must compiling be likely to save
JUDGED_AFTER = 3  # compiled pictures


def compilable(spec: WorkerSpec, log: Log) -> Mode:
    """The setting `compile`, or `never` in a memory mode whose weights change within the blocks."""
    if not spec.may_compile or FACTS[spec.memory].compiles:
        return spec.compile
    log(
        "WARNING" if spec.compile == "always" else "INFO",
        f"compile: blocks are not compiled with memory: {spec.memory}, "
        "which changes or moves their weights while they run",
    )
    return "never"


class Compilation:
    """Whether blocks are compiled, and what that changes.

    In mode `auto` it compiles once enough work lies ahead by the measured speed, and goes back
    if the pictures do not come faster for it.
    """

    def __init__(self, denoiser: Any, mode: Mode, device: torch.device, log: Log) -> None:
        self._denoiser, self._log = denoiser, log
        able = bool(getattr(denoiser, "_repeated_blocks", None))
        if mode == "always" and not able:
            log("WARNING", f"{type(denoiser).__name__} names no blocks to compile")
        # On a CPU compiled pictures are hardly faster: only by wish.
        self._mode = mode if able and (mode == "always" or device.type == "cuda") else "never"
        self.active = False
        self._shapes: set[Hashable] = set()  # of calls since it is active
        self._plain = _Speed()
        self._compiled = _Speed()

    def due(self, ahead: int, work: float) -> bool:
        """Is it time to compile?

        Args:
            ahead: pictures that this worker has before it.
            work: of one of them, in any unit.
        """
        if self.active or self._mode == "never":
            return False
        if self._mode == "always":
            return True
        saved = ahead * work * self._plain.seconds * LIKELY_GAIN
        return saved > MARGIN * LIKELY_COST

    def begin(self) -> None:
        """From the next call on."""
        self._denoiser.compile_repeated_blocks(fullgraph=True)
        self.active, self._compiled = True, _Speed()
        self._shapes.clear()

    def ahead_of(self, shape: Hashable) -> bool:
        """Is something compiled before the next call, because none was of this shape so far?"""
        if not self.active or shape in self._shapes:
            return False
        self._shapes.add(shape)
        return True

    @contextmanager
    def timed(self, work: float) -> Iterator[None]:
        """Around the drawing of pictures."""
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        (self._compiled if self.active else self._plain).add(seconds, work)
        if self.active and self._compiled.count == JUDGED_AFTER:
            self._judge(work)

    def give_up(self, reason: str) -> None:
        """Run the blocks as they are, for good."""
        for module in self._denoiser.modules():
            module._compiled_call_impl = None
        self.active, self._mode = False, "never"
        self._log("WARNING", f"not compiled: {reason}")

    def _judge(self, work: float) -> None:
        first, now = self._compiled.first, self._compiled.seconds * work
        before = self._plain.seconds * work
        compared = f" instead of {before:.2f} s" if before else ""
        self._log("INFO", f"compiled in {first - now:.0f} s; a picture takes {now:.2f} s{compared}")
        if self._mode == "auto" and now >= before:
            self.give_up("pictures came no faster for it")


class _Speed:
    """Seconds per unit of work; the first picture, which warms up, stays out."""

    def __init__(self) -> None:
        self.count = 0
        self.first = 0.0
        self.seconds = 0.0

    def add(self, seconds: float, work: float) -> None:
        if self.count == 0:
            self.first = seconds
        else:
            latest = seconds / work
            self.seconds = latest if self.count == 1 else 0.7 * self.seconds + 0.3 * latest
        self.count += 1


def compiler_failed(error: Exception) -> bool:
    """Whether it is the compiler that failed, and not the model."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return isinstance(error, TorchDynamoException | FailOnRecompileLimitHit)
