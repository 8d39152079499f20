"""What a picture's file costs: `python -m benchmarks.encode`.

CPU time and size of every way to write it, against Pillow's default PNG, on made-up pictures
of 1024 x 1024 pixels: smooth shapes of all scales under three strengths of grain.
"""

import time
import zlib
from io import BytesIO
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.ratios import times_faster

SIDE = 1024
ROUNDS = 7
GRAINS = (0.0, 1.0, 3.0)  # deviation of the noise, of 255

WAYS: dict[str, dict[str, Any]] = {
    "PNG, Pillow's default": {"format": "PNG"},
    "PNG, zlib level 1": {"format": "PNG", "compress_level": 1},
    "PNG, run lengths": {"format": "PNG", "compress_type": zlib.Z_RLE},
    "WebP, lossless": {"format": "WEBP", "lossless": True, "method": 1, "quality": 20},
}


def picture(grain: float, seed: int = 0) -> Image.Image:
    """Noise of all scales, the coarse stronger than the fine, and `grain` on top."""
    rng = np.random.default_rng(seed)
    layers = np.zeros((SIDE, SIDE, 3))
    for cells in (8, 16, 32, 64, 128, 256, 512):
        for channel in range(3):
            coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
            smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            layers[..., channel] += smooth * (8 / cells) ** 0.9
    layers = (layers - layers.min()) / (layers.max() - layers.min()) * 255
    layers += rng.normal(size=layers.shape) * grain
    return Image.fromarray(layers.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, options: dict[str, Any]) -> tuple[float, int]:
    """Seconds of CPU time, and bytes."""
    stream = BytesIO()
    started = time.process_time()
    image.save(stream, **options)
    return time.process_time() - started, len(stream.getvalue())


def main() -> None:
    print("| grain | way | CPU ms | times faster (range) | size |\n| --- | --- | --- | --- | --- |")
    for grain in GRAINS:
        image = picture(grain)
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        sizes: dict[str, int] = {}
        for _ in range(ROUNDS):
            for name, options in WAYS.items():
                spent, sizes[name] = encode(image, options)
                seconds[name].append(spent)
        base, *_ = WAYS
        for name, values in seconds.items():
            faster = times_faster(seconds[base], values, digits=1)
            print(
                f"| {grain:g} | {name} | {1000 * median(values):.0f} | {faster} "
                f"| {sizes[name] / sizes[base]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
