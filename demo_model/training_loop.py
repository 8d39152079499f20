"""The frame of a long training: the rate's course, its end in time, and going on after a kill."""

import copy
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

REPORT_EVERY = 100  # steps
SAVE_EVERY = 60  # seconds


def course(done: float, step: int, warm_up: int = 100) -> float:
    """The share of the peak learning rate: up, level, and from half-way on linearly down.

    Args:
        done: share of the training, 0 to 1.
    """
    return min(1.0, (step + 1) / warm_up) * min(1.0, max(0.02, 2 * (1 - done)))


class Average:
    """The moving average of some models' weights, which is what is kept of them."""

    def __init__(self, models: Mapping[str, torch.nn.Module], keep: float) -> None:
        self.models = {name: copy.deepcopy(m).eval() for name, m in models.items()}
        self._keep = keep

    @torch.no_grad()
    def follow(self, models: Mapping[str, torch.nn.Module], step: int) -> None:
        """Move towards the weights of `models`; in the first steps faster."""
        keep = min(self._keep, (2 + step) / (11 + step))
        for name, average in self.models.items():
            new = [p.detach() for p in models[name].parameters()]
            torch._foreach_lerp_(list(average.parameters()), new, 1 - keep)

    def state_dict(self) -> dict[str, Any]:
        return {name: model.state_dict() for name, model in self.models.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, model in self.models.items():
            model.load_state_dict(state[name])


class Loop:
    """Counts steps, and starts where an earlier, unfinished one left off.

    Every step has random numbers of its own (torch's, and `rng`), so that a training that was
    killed in between ends with the same weights as one that was not. A training that is given a
    time to end at ends there, whatever step it has reached: the course of its learning rate
    follows the clock.
    """

    def __init__(
        self,
        name: str,
        steps: int,
        seed: int,
        parts: Mapping[str, Any],
        state: Path,
        until: float | None = None,
        show: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            parts: whatever changes by training and has a `state_dict`.
            state: the file that keeps them meanwhile, and at the end, so that a kill before the
                result is published costs nothing; `stage.publish` removes it.
            until: when to end at the latest, in the seconds of `time.time`.
            show: writes pictures of what is learnt so far; called whenever the state is saved.
        """
        self.steps = steps
        self.rng = random.Random()
        self.done = 0.0
        self._name, self._seed, self._parts, self._state = name, seed, parts, state
        self._until, self._show = until, show
        self._losses: dict[str, list[torch.Tensor | float]] = {}

    def __iter__(self) -> Iterator[int]:
        torch.set_flush_denormal(True)  # an optimizer's smallest numbers are slow on a CPU
        try:
            yield from self._counted()
        finally:
            torch.set_flush_denormal(False)  # of the whole process, not of the training

    def _counted(self) -> Iterator[int]:
        first, done_before = self._restore()
        if done_before >= 1:
            return
        began = saved = time.time()
        reached = self.steps
        for step in range(first, self.steps):
            now = time.time()
            self.done = max(step / self.steps, self._by_the_clock(done_before, began, now))
            if self.done >= 1:
                print(f"{self._name}: time is up at step {step}", flush=True)
                reached = step
                break
            torch.manual_seed(self._seed * 1_000_000 + step)
            self.rng.seed(f"{self._seed} {step}")
            yield step
            if (step + 1) % REPORT_EVERY == 0:
                self._report(step + 1, time.time() - began)
            if time.time() - saved > SAVE_EVERY:
                self._save(step + 1)
                saved = time.time()
        self.done = 1.0
        self._save(reached)

    def _by_the_clock(self, done_before: float, began: float, now: float) -> float:
        """Share of the training, by the time that is left of what there was at its start."""
        if self._until is None:
            return 0.0
        left = (self._until - now) / max(self._until - began, 1e-3)
        return 1 - (1 - done_before) * left

    def rate(self, step: int, warm_up: int = 100) -> float:
        """The share of the peak learning rate that this step is to have."""
        return course(self.done, step, warm_up)

    def note(self, loss: torch.Tensor | float, of: str = "loss") -> None:
        """For the next report, which shows the mean of each kind."""
        self._losses.setdefault(of, []).append(loss)

    def _report(self, step: int, seconds: float) -> None:
        means = [
            f"{of} {sum(float(loss) for loss in of_one) / len(of_one):.4f}"
            for of, of_one in self._losses.items()
        ]
        self._losses.clear()
        print(f"{self._name} step {step}", *means, f"{seconds:.0f} s", flush=True)

    def _save(self, step: int) -> None:
        self._state.parent.mkdir(parents=True, exist_ok=True)
        draft = self._state.with_suffix(".draft")
        states = {name: part.state_dict() for name, part in self._parts.items()}
        with draft.open("wb") as file:
            torch.save({"step": step, "done": self.done, "parts": states}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._state)
        if self._show:
            self._show()

    def _restore(self) -> tuple[int, float]:
        """Step to begin with, and the share of the training that is behind it."""
        if not self._state.exists():
            return 0, 0.0
        kept = torch.load(self._state, map_location="cpu", weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(kept["parts"][name])
        print(f"{self._name}: going on from step {kept['step']}", flush=True)
        return int(kept["step"]), float(kept["done"])
