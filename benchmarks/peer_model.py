"""One model for every contender of `benchmarks.serving --peers`, without anything of this project.

It is imported in other programs' environments. What it needs beside them, Pillow, torch and
diffusers, is found by `add_packages`.
"""

import base64
import io
import os
import sys
import time
from typing import Any

PACKAGES = "BENCHMARK_PACKAGES"  # environment variable: a folder of packages that are lacking
MODEL = "BENCHMARK_MODEL"  # environment variable: SIMULATED, or the folder of a model
SIMULATED = "simulated"
SECONDS = 0.1  # of a simulated picture
SIDES = {SIMULATED: 64}  # pixels; else
SIDE, STEPS = 128, 8


def add_packages() -> None:
    """Have packages of the environment that started the benchmark, behind one's own."""
    folder = os.environ.get(PACKAGES)
    if folder and folder not in sys.path:
        sys.path.append(folder)


class PeerModel:
    """Draws pictures, one after the other, with one thread."""

    def __init__(self) -> None:
        self._pipeline: Any = None
        place = os.environ[MODEL]
        if place != SIMULATED:
            import torch
            from diffusers import ZImagePipeline

            torch.set_num_threads(1)
            self._pipeline = ZImagePipeline.from_pretrained(place, dtype=torch.float32)
            self._pipeline.set_progress_bar_config(disable=True)

    def draw(self, prompt: str, seed: int) -> str:
        """A picture as PNG in base64."""
        stream = io.BytesIO()
        self._picture(prompt, seed).save(stream, "PNG", compress_level=1)
        return base64.b64encode(stream.getvalue()).decode()

    def _picture(self, prompt: str, seed: int) -> Any:
        if self._pipeline is None:
            from PIL import Image

            time.sleep(SECONDS)
            side = SIDES[SIMULATED]
            return Image.new("RGB", (side, side), (seed % 256, 0, 0))
        import torch

        return self._pipeline(
            prompt=prompt,
            width=SIDE,
            height=SIDE,
            num_inference_steps=STEPS,
            guidance_scale=0.0,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
