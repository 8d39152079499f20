"""Measures the demo model: `python -m demo_model.evaluate [--samples 300] [--card]`.

Prompt following by `checker`, autoencoder sharpness, LoRA styles and seconds a picture, with
95 % Wilson intervals; `--card` writes the table into the model card. The checker runs in
processes beside the one that draws.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ZImagePipeline
from PIL import Image

from demo_model.captions import caption, plain_caption
from demo_model.checker import all_right
from demo_model.figures import Better, Figure, Measured, write_card
from demo_model.scenes import Scene, held_out, render, sample_scene
from demo_model.styles import STYLES, render_styled
from demo_model.train_vae import psnr, training_pictures
from demo_model.training_set import Size

HERE = Path(__file__).resolve().parent
CHECKPOINT, LORAS, CARD = HERE / "checkpoint", HERE / "loras", HERE / "README.md"
CARD_START, CARD_END = "<!-- figures -->", "<!-- end of figures -->"
BATCH, STEPS = 8, 8
CHECKERS = os.cpu_count() or 2  # processes
CLOSE = 0.05  # of the way to a style: as near to what a strength asks for as any other
SECONDS = 0.35  # a picture, on one thread
USUAL: Size = (128, 128)
SQUARES: tuple[Size, ...] = ((96, 96), (112, 112), (160, 160), (192, 192), (224, 224), (256, 256))
OBLONGS: tuple[Size, ...] = (
    (192, 128), (128, 192), (256, 144), (144, 256), (160, 96), (96, 160), (256, 96), (96, 256),
)  # fmt: skip
MISMATCHED = "control: mismatched prompt"
Say = Callable[[Scene, random.Random], str]


@dataclass(frozen=True)
class Trial:
    """A group of prompts: which scenes, said how, drawn in which sizes and how many steps."""

    name: str
    scenes: str
    say: Say
    sizes: tuple[Size, ...] = (USUAL,)
    steps: int = STEPS


@dataclass(frozen=True)
class Share:
    """`right` of `total`, with its 95 % Wilson interval."""

    name: str
    right: int
    total: int

    def __str__(self) -> str:
        z, n, p = 1.96, self.total, self.right / self.total
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return f"{p:.3f} ({middle - half:.3f}-{middle + half:.3f})"

    def row(self) -> str:
        return f"| {self.name} | {self} | {self.total} |"

    def figure(self) -> Figure:
        better: Better = "less" if self.name == MISMATCHED else "more"
        return Figure(self.name, round(self.right / self.total, 3), better)


def draw(
    pipeline: Any,
    prompts: Sequence[str],
    first_seed: int,
    sizes: Sequence[Size] = (USUAL,),
    steps: int = STEPS,
) -> list[Image.Image]:
    """Pictures for prompts; picture i has the seed `first_seed` + i; sizes take turns."""
    images: dict[int, Image.Image] = {}
    for turn, (width, height) in enumerate(sizes):
        same = range(turn, len(prompts), len(sizes))
        for start in range(0, len(same), BATCH):
            chunk = same[start : start + BATCH]
            drawn = pipeline(
                [prompts[i] for i in chunk],
                height=height,
                width=width,
                num_inference_steps=steps,
                guidance_scale=0.0,
                generator=[torch.Generator().manual_seed(first_seed + i) for i in chunk],
            ).images
            images.update(zip(chunk, drawn, strict=True))
    return [images[i] for i in range(len(prompts))]


def scenes_of(kind: str, count: int, seed: int) -> list[Scene]:
    """Unseen scenes: `seen` or `unseen` colour-kind pairs with one object, or `two` objects."""
    rng = random.Random(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = sample_scene(rng, trained_pairs_only=False, objects=2 if kind == "two" else 1)
        unseen = any(held_out(t.colour, t.kind) for t in scene.things)
        if unseen == (kind == "unseen"):
            scenes.append(scene)
    return scenes


def say_plainly(scene: Scene, rng: random.Random) -> str:
    return plain_caption(scene)


def say_at_length(scene: Scene, rng: random.Random) -> str:
    """More than 32 tokens with the template: the caption's second block of padding."""
    words = plain_caption(scene)
    return f"a picture of a nice simple scene, it is a drawing of the view with {words} " + (
        "and there is a simple nice ground and a nice sky"
    )


TRIALS = (
    Trial("colour-kind pairs seen in training", "seen", say_plainly),
    Trial("colour-kind pairs never seen", "unseen", say_plainly),
    Trial("two objects", "two", say_plainly),
    Trial("free phrasing and word order", "seen", caption),
    Trial("captions over 32 tokens", "seen", say_at_length),
    Trial("4 steps instead of 8", "seen", say_plainly, steps=4),
    Trial("square, from 96x96 to 256x256", "seen", say_plainly, SQUARES),
    Trial("oblong, from 8:3 to 3:8", "seen", say_plainly, OBLONGS),
)


def follow(pipeline: Any, checkers: Executor, samples: int, seed: int) -> list[Share]:
    """The prompt-following table."""
    shares = []
    for number, trial in enumerate(TRIALS):
        scenes = scenes_of(trial.scenes, samples, seed + number)
        rng = random.Random(seed)
        prompts = [trial.say(s, rng) for s in scenes]
        images = draw(pipeline, prompts, 1000 * number, trial.sizes, trial.steps)
        shares.append(_share(checkers, trial.name, images, scenes))
        if number == 0:
            shares += _controls(checkers, images, scenes)
    return shares


def _share(
    checkers: Executor,
    name: str,
    images: Sequence[Image.Image],
    scenes: Sequence[Scene],
    style: str | None = None,
) -> Share:
    verdicts = checkers.map(all_right, images, scenes, [style] * len(scenes), chunksize=8)
    share = Share(name, sum(verdicts), len(scenes))
    print(share.row(), flush=True)
    return share


def _controls(checkers: Executor, images: list[Image.Image], scenes: list[Scene]) -> list[Share]:
    """The checker on pictures of other prompts (should be 0), and on real renders (1)."""
    rng = random.Random(0)
    renders = [render(s, *USUAL, rng=rng) for s in scenes]
    return [
        _share(checkers, MISMATCHED, images, scenes[1:] + scenes[:1]),
        _share(checkers, "control: renders", renders, scenes),
    ]


def style_closeness(images: Sequence[Image.Image], scenes: Sequence[Scene], style: str) -> float:
    """Mean share of the way from the plain render to the styled render, by pixels (0..1)."""
    shares = []
    for image, scene in zip(images, scenes, strict=True):
        plain = np.asarray(render(scene)).astype(np.float32)
        direction = np.asarray(render_styled(scene, style)).astype(np.float32) - plain
        moved = np.asarray(image).astype(np.float32) - plain
        shares.append(float((moved * direction).sum() / (direction * direction).sum()))
    return float(np.mean(shares))


def styles(
    pipeline: Any, loras: Path, checkers: Executor, samples: int, seed: int
) -> tuple[list[str], list[Figure]]:
    """How far each LoRA moves pictures towards its style at strengths 0, 0.5 and 1.

    And, at 1, how many show every attribute; the same checker on renders in the style.
    """
    rows, figures = [], []
    for style in STYLES:
        file = loras / f"{style}.safetensors"
        pipeline.load_lora_weights(
            str(file.parent), weight_name=file.name, adapter_name=style, use_safetensors=True
        )
        scenes = scenes_of("seen", samples, seed)
        prompts = [plain_caption(s) for s in scenes]
        values = []
        for strength in (0.0, 0.5, 1.0):
            pipeline.set_adapters([style], [strength])
            images = draw(pipeline, prompts, 0)
            value = round(style_closeness(images, scenes, style), 2)
            values.append(f"{value:.2f}")
            name = f"{style} at {strength:g}: share of the way"
            figures.append(Figure(name, value, "near", strength, CLOSE))
        pipeline.unload_lora_weights()
        kept = _share(checkers, f"{style} at 1", images, scenes, style)
        figures.append(kept.figure())
        rng = random.Random(0)
        renders = [render_styled(s, style, rng=rng) for s in scenes]
        control = _share(checkers, f"{style} renders", renders, scenes, style)
        rows.append(f"| {' | '.join([style, *values, str(kept), str(control), str(samples)])} |")
    return rows, figures


def seconds_a_picture(pipeline: Any) -> float:
    """The fastest of ten single pictures on one thread, in its own time on the processor."""
    pipeline.to("cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for seed in range(11):
        started = time.process_time()
        pipeline(
            "a red house on the left on grass at night",
            width=USUAL[0],
            height=USUAL[1],
            num_inference_steps=STEPS,
            guidance_scale=0.0,
            generator=torch.Generator().manual_seed(seed),
        )
        times.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return min(times[1:])


def measure(
    checkpoint: Path, loras: Path, samples: int, seed: int, device: str = "cpu"
) -> Measured:
    """The model card's tables of a checkpoint and its LoRAs."""
    pipeline = ZImagePipeline.from_pretrained(checkpoint, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    sharpness = round(psnr(pipeline.vae, training_pictures(300, seed + 1)), 1)
    with ProcessPoolExecutor(CHECKERS, mp_context=get_context("spawn")) as checkers:
        shares = follow(pipeline, checkers, samples, seed)
        rows, figures = styles(pipeline, loras, checkers, max(8, samples // 3), seed)
    weights = [*checkpoint.rglob("*.safetensors"), *loras.glob("*.safetensors")]
    megabytes = round(sum(f.stat().st_size for f in weights) / 1e6, 1)
    seconds = round(seconds_a_picture(pipeline), 2)
    table = "\n".join(
        [
            "| prompts, every attribute right | share (95 % interval) | n |",
            "| --- | --- | --- |",
            *(share.row() for share in shares),
            "",
            "| LoRA: share of the way to its style | strength 0 | 0.5 | 1 "
            "| every attribute right at 1 | in renders of the style | n |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"Autoencoder: {sharpness:.1f} dB PSNR on 300 unseen pictures, styles included. "
            f"All weights: {megabytes:.1f} MB. One picture, {STEPS} steps on one CPU thread: "
            f"{seconds:.2f} s.",
        ]
    )
    return Measured(
        table,
        (
            *(share.figure() for share in shares),
            *figures,
            Figure("autoencoder, dB", sharpness, "more"),
            Figure("seconds a picture", seconds, "below", SECONDS),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=300, help="prompts per group")
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda, to draw on")
    parser.add_argument("--card", action="store_true", help="write the figures into README.md")
    options = parser.parse_args()
    table = measure(CHECKPOINT, LORAS, options.samples, options.seed, options.device).table
    print(table)
    if options.card:
        write_card(CARD, {(CARD_START, CARD_END): table})


if __name__ == "__main__":
    main()
