"""Who draws in `benchmarks.gpu`: a script's loop, and the worker's model with its settings."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ZImagePipeline

from core.devices import choose_devices
from core.lora_files import LoraInspector
from core.messages import Lease
from core.model_choice import choose_model
from core.settings import load_settings
from core.tasks import GenerateTask
from core.worker_spec import spec_for
from workers.models.native_image_generator import NativeImageGenerator

STEPS = 9
PROMPTS = [f"a {c} house on the {p}" for c in ("red", "blue", "green") for p in ("left", "right")]
Draw = Callable[[int], None]
"""Draws so many pictures."""


@dataclass(frozen=True)
class Place:
    """What all contenders share."""

    model: Path
    side: int
    device: str
    loras: list[Path]
    out: Path


def plain_loop(place: Place) -> Draw:
    """What a script does."""
    pipeline = ZImagePipeline.from_pretrained(
        place.model, dtype=torch.bfloat16, device_map=place.device
    )
    pipeline.set_progress_bar_config(disable=True)

    def draw(count: int) -> None:
        for n in range(count):
            image = pipeline(
                prompt=PROMPTS[n % len(PROMPTS)],
                width=place.side,
                height=place.side,
                num_inference_steps=STEPS,
                guidance_scale=0.0,
                generator=torch.Generator("cpu").manual_seed(n),
            ).images[0]
            image.save(place.out / f"plain-{n}.png")

    return draw


def worker(place: Place, batch: int = 1, loras: bool = False, **workers: Any) -> Draw:
    """The worker's model, without the encoding, which a worker does behind the next picture."""
    settings = load_settings({"workers": {"max_batch": batch, **workers}, "dtype": "bfloat16"})
    devices = choose_devices(1, None, place.device)  # type: ignore[arg-type]
    model = choose_model(str(place.model), None, "bfloat16", devices)
    spec = spec_for(devices[0], "generate", model, settings, threads=os.cpu_count() or 1)
    family = NativeImageGenerator(spec, lambda level, text: print(f"  {text}", flush=True))
    family.load()
    inspector = LoraInspector()
    hashes = [inspector.sha256(file) for file in place.loras] if loras else []

    def draw(count: int) -> None:
        leases = [_lease(place, n, hashes) for n in range(count)]
        for start in range(0, count, batch):
            family.run(leases[start : start + batch])

    return draw


def _lease(place: Place, number: int, hashes: Sequence[str]) -> Lease:
    which = number % len(hashes) if hashes else 0
    task = GenerateTask(
        PROMPTS[number % len(PROMPTS)],
        width=place.side,
        height=place.side,
        num_inference_steps=STEPS,
        guidance_scale=0.0,
        seed=number,
        lora_path=str(place.loras[which]) if hashes else None,
    )
    return Lease(str(number), 1, task, hashes[which] if hashes else None, "-", "-")
