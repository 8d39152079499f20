"""Contenders that take turns, and what the workers among them are told."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.ratios import times_faster
from core.devices.device import choose_devices
from core.devices.model_choice import choose_model
from core.devices.worker_specs import spec_for
from core.worker_spec import WorkerSpec

Turn = Callable[[], Any]


def table(title: str, turns: dict[str, Turn], count: int, rounds: int) -> None:
    """The first one is what the others are compared with."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for round_number in range(rounds + 1):
        for name, turn in turns.items():
            started = time.perf_counter()
            turn()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    base = next(iter(seconds.values()))
    print(f"\n{title}\n\n| contender | s each | times faster |\n| --- | --- | --- |")
    for name, values in seconds.items():
        print(
            f"| {name} | {median(values) / count:.3f} | {times_faster(base, values)} |", flush=True
        )


def peak_gib() -> float | None:
    """The most GPU memory that this process held at once; None without a GPU."""
    return torch.cuda.max_memory_allocated() / 1024**3 if torch.cuda.is_available() else None


def worker_spec(model: Path, device: str, role: Any, settings: Any) -> WorkerSpec:
    """In bfloat16 on a GPU."""
    [chosen] = choose_devices(1, None, device)  # type: ignore[arg-type]
    choice = choose_model(
        str(model),
        None,
        "auto",
        [chosen],
        index_file="config.json" if role == "score" else "model_index.json",
    )
    return spec_for(chosen, role, choice, settings, threads=torch.get_num_threads())


def say(level: str, text: str) -> None:
    """A worker's log."""
    print(f"  {text}", flush=True)


def noise(file: Path, side: int) -> Path:
    """A picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file
