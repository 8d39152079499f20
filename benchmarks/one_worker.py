"""One worker against a plain diffusers loop: `python -m benchmarks.one_worker`.

The demo model on one CPU thread, in this process: what a picture costs with each of the
worker's savings, and how far pixels move with the company of others in a batch.
"""

import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from diffusers import ZImagePipeline

from benchmarks.ratios import times_faster
from core.devices.device import choose_devices
from core.devices.model_choice import DEMO_MODEL, choose_model
from core.devices.worker_specs import spec_for
from core.messages import Lease
from core.settings import load_settings
from core.tasks import GenerateTask
from demo_model.captions import caption
from demo_model.scenes import sample_scene
from workers.models.native_image_generator import NativeImageGenerator

PICTURES = 48
ROUNDS = 3
STEPS = 8
SIDE = 128
Drawn = list[np.ndarray[Any, Any]]


def prompts() -> list[str]:
    rng = random.Random(0)
    return [caption(sample_scene(rng), rng) for _ in range(PICTURES)]


def plain_loop(pipeline: Any) -> Callable[[Sequence[str]], Drawn]:
    """What a script does."""

    def draw(texts: Sequence[str]) -> Drawn:
        return [
            np.asarray(
                pipeline(
                    prompt=text,
                    width=SIDE,
                    height=SIDE,
                    num_inference_steps=STEPS,
                    guidance_scale=0.0,
                    generator=torch.Generator().manual_seed(n),
                ).images[0]
            )
            for n, text in enumerate(texts)
        ]

    return draw


def worker(batch: int) -> Callable[[Sequence[str]], Drawn]:
    settings = load_settings({"device": "cpu", "workers": {"max_cached_prompts": 0}})
    devices = choose_devices(1, None, "cpu")
    model = choose_model(str(DEMO_MODEL), None, "auto", devices)
    spec = spec_for(devices[0], "generate", model, settings, threads=1)
    family = NativeImageGenerator(spec, lambda level, text: None)
    family.load()

    def draw(texts: Sequence[str]) -> Drawn:
        leases = [_lease(n, text) for n, text in enumerate(texts)]
        groups = [leases[i : i + batch] for i in range(0, len(leases), batch)]
        return [np.asarray(p.image) for group in groups for p in family.run(group)]  # type: ignore[attr-defined]

    return draw


def _lease(number: int, text: str) -> Lease:
    task = GenerateTask(
        text, width=SIDE, height=SIDE, num_inference_steps=STEPS, guidance_scale=0.0, seed=number
    )
    return Lease(str(number), 1, task, None, "-", "-")


def main() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    pipeline = ZImagePipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    contenders = {"plain diffusers loop": plain_loop(pipeline)}
    contenders |= {f"worker, {n} at once": worker(n) for n in (1, 2, 4, 8)}
    texts = prompts()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    pictures: dict[str, Drawn] = {}
    for _ in range(ROUNDS):
        for name, draw in contenders.items():
            started = time.perf_counter()
            pictures[name] = draw(texts)
            seconds[name].append(time.perf_counter() - started)
    base, alone = seconds["plain diffusers loop"], pictures["worker, 1 at once"]
    print("| contender | s a picture | times faster | pixels that differ from alone | at most |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in seconds.items():
        off = np.stack([abs(a.astype(int) - b) for a, b in zip(pictures[name], alone, strict=True)])
        print(
            f"| {name} | {median(values) / PICTURES:.3f} | {times_faster(base, values)} "
            f"| {(off > 0).mean():.3%} | {off.max()} of 255 |"
        )


if __name__ == "__main__":
    main()
