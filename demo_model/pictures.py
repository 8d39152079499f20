"""Draws many pictures at once; needs no model library, so that helpers start quickly."""

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from demo_model.scenes import Scene, render
from demo_model.styles import render_styled
from workers.boot import bind_to_parent

CHUNK = 16  # that a process takes at once
Result = TypeVar("Result")


def map_all(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], processes: int
) -> list[Result]:
    """`function(*a)` for each `a`, in their order.

    Processes are forks, which touch neither a GPU nor torch.
    """
    if processes <= 1 or len(arguments) <= CHUNK:
        return [function(*a) for a in arguments]
    with ProcessPoolExecutor(
        processes, get_context("fork"), initializer=bind_to_parent, initargs=(os.getpid(),)
    ) as pool:
        return list(pool.map(function, *zip(*arguments, strict=True), chunksize=CHUNK))


def draw_all(
    draw: Callable[..., Image.Image], arguments: Sequence[tuple[Any, ...]], processes: int
) -> np.ndarray:
    """[count, height, width, 3] uint8 of `draw(*a)` for each `a`, all of one size."""
    return np.stack([np.asarray(image) for image in map_all(draw, arguments, processes)])


def draw_scene(scene: Scene, style: str, width: int, height: int, seed: str) -> Image.Image:
    """A scene, its objects a little beside their places; `style` may be empty."""
    rng = random.Random(seed)
    if style:
        return render_styled(scene, style, width, height, rng)
    return render(scene, width, height, rng)


def sheet(rows: Sequence[Sequence[Image.Image]], gap: int = 4) -> Image.Image:
    """Pictures in rows, all as wide and high as the first."""
    width, height = rows[0][0].size
    columns = max(map(len, rows))
    whole = Image.new(
        "RGB", (columns * (width + gap) - gap, len(rows) * (height + gap) - gap), "white"
    )
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            whole.paste(picture, (x * (width + gap), y * (height + gap)))
    return whole
