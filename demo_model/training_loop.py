"""The frame of a long training: the rate's course, progress, and going on after a stop."""

import os
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

REPORT_EVERY = 100  # steps
SAVE_EVERY = 300  # seconds


def course(step: int, steps: int, warm_up: int = 100) -> float:
    """The share of the peak learning rate: up, level, and from half-way on linearly down."""
    return min(1.0, (step + 1) / warm_up) * min(1.0, max(0.02, 2 * (1 - step / steps)))


class Loop:
    """Counts steps, and starts where an earlier, unfinished one left off.

    Every step has random numbers of its own (torch's, and `rng`), so that a training that was
    stopped in between ends with the same weights as one that was not.
    """

    def __init__(
        self, name: str, steps: int, seed: int, parts: Mapping[str, Any], state: Path
    ) -> None:
        """
        Args:
            parts: whatever changes by training and has a `state_dict`.
            state: the file that keeps them meanwhile; gone once all steps are done.
        """
        self.steps = steps
        self.rng = random.Random()
        self._name, self._seed, self._parts, self._state = name, seed, parts, state
        self._losses: dict[str, list[float]] = {}

    def __iter__(self) -> Iterator[int]:
        torch.set_flush_denormal(True)  # an optimizer's smallest numbers are slow on a CPU
        try:
            yield from self._counted()
        finally:
            torch.set_flush_denormal(False)  # of the whole process, not of the training

    def _counted(self) -> Iterator[int]:
        first = self._restore()
        started = saved = time.monotonic()
        for step in range(first, self.steps):
            torch.manual_seed(self._seed * 1_000_000 + step)
            self.rng.seed(f"{self._seed} {step}")
            yield step
            now = time.monotonic()
            if (step + 1) % REPORT_EVERY == 0:
                self._report(step + 1, now - started)
            if now - saved > SAVE_EVERY:
                self._save(step + 1)
                saved = now
        self._state.unlink(missing_ok=True)

    def note(self, loss: float, of: str = "loss") -> None:
        """For the next report, which shows the mean of each kind."""
        self._losses.setdefault(of, []).append(loss)

    def _report(self, step: int, seconds: float) -> None:
        means = [f"{of} {sum(of_one) / len(of_one):.4f}" for of, of_one in self._losses.items()]
        self._losses.clear()
        print(f"{self._name} step {step}", *means, f"{seconds:.0f} s", flush=True)

    def _save(self, step: int) -> None:
        self._state.parent.mkdir(parents=True, exist_ok=True)
        draft = self._state.with_suffix(".draft")
        states = {name: part.state_dict() for name, part in self._parts.items()}
        torch.save({"step": step, "parts": states}, draft)
        os.replace(draft, self._state)

    def _restore(self) -> int:
        if not self._state.exists():
            return 0
        kept = torch.load(self._state, weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(kept["parts"][name])
        print(f"{self._name}: going on from step {kept['step']}", flush=True)
        return int(kept["step"])
