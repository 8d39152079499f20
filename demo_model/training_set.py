"""What the transformer learns from: captioned scenes in many sizes, as latents.

Pictures of like size share a batch, so that every step costs about the same. The first of a
batch has its group's full length: all batches of a group then have one shape, and compiled
code is made once for each.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from demo_model.scenes import Scene, sample_scene
from demo_model.train_vae import encode

SIDES = range(96, 257, 16)  # pixels
PATCH = 16  # pixels of a picture that make one token of the transformer
BLOCK = 32  # the transformer pads a picture's tokens to a multiple of this
Size = tuple[int, int]  # width and height in pixels
Draw = Callable[[Scene, int, int, random.Random], Image.Image]  # as `scenes.render`


@dataclass(frozen=True)
class Group:
    """Pictures of `above` < tokens <= `tokens`, `batch` at a time, in `share` of the steps."""

    above: int
    tokens: int
    batch: int
    share: float

    def sizes(self) -> list[Size]:
        return [
            (width, height)
            for width in SIDES
            for height in SIDES
            if self.above < tokens_of((width, height)) <= self.tokens
        ]


GROUPS = (Group(0, 64, 32, 0.6), Group(64, 128, 16, 0.2), Group(128, 256, 8, 0.2))
USUAL: Size = (128, 128)
USUAL_SHARE = 0.6  # of the group that it belongs to


def tokens_of(size: Size) -> int:
    """Image tokens of a picture, before padding."""
    return size[0] // PATCH * (size[1] // PATCH)


def sample_size(group: Group, rng: random.Random) -> Size:
    """The usual size most often, where it belongs to the group."""
    sizes = group.sizes()
    if USUAL in sizes and rng.random() < USUAL_SHARE:
        return USUAL
    return rng.choice(sizes)


class GroupSet:
    """The scenes of one group: pictures encoded once, drawn in batches."""

    def __init__(self, group: Group, count: int, vae: Any, draw: Draw, rng: random.Random) -> None:
        self.group = group
        self.scenes = [sample_scene(rng) for _ in range(count)]
        sizes = [sample_size(group, rng) for _ in range(count)]
        self.latents = _encode(vae, self.scenes, sizes, draw, rng)
        whole = group.tokens - BLOCK
        self._full = [i for i, size in enumerate(sizes) if tokens_of(size) > whole]

    def batch(self, rng: random.Random) -> tuple[list[Scene], list[torch.Tensor]]:
        """Scenes, and their latents [16, height / 8, width / 8] in float."""
        picks = [rng.choice(self._full)]
        picks += rng.choices(range(len(self.scenes)), k=self.group.batch - 1)
        return [self.scenes[i] for i in picks], [self.latents[i].float() for i in picks]


class TrainingSet:
    """`count` scenes, of which each group gets its share of the training samples.

    `halvings` halves all batches that many times.
    """

    def __init__(self, count: int, vae: Any, draw: Draw, seed: int, halvings: int = 0) -> None:
        rng = random.Random(seed)
        groups = [replace(g, batch=g.batch >> halvings) for g in GROUPS]
        samples = [g.batch * g.share for g in groups]
        self.sets = [
            GroupSet(g, round(count * n / sum(samples)), vae, draw, rng)
            for g, n in zip(groups, samples, strict=True)
        ]

    def batch(self, rng: random.Random) -> tuple[list[Scene], list[torch.Tensor]]:
        """The next batch, from a group drawn by its share of the steps."""
        chosen = rng.choices(self.sets, weights=[s.group.share for s in self.sets])[0]
        return chosen.batch(rng)


def pixels_of(image: Image.Image) -> torch.Tensor:
    """[height, width, 3] uint8 of a picture."""
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(image.height, image.width, 3)


def _encode(
    vae: Any, scenes: Sequence[Scene], sizes: Sequence[Size], draw: Draw, rng: random.Random
) -> list[torch.Tensor]:
    """Latents in half precision, encoded together where sizes agree."""
    latents: list[torch.Tensor] = [torch.empty(0)] * len(scenes)
    for size in sorted(set(sizes)):
        same = [i for i, s in enumerate(sizes) if s == size]
        for start in range(0, len(same), 256):
            chunk = same[start : start + 256]
            pictures = [pixels_of(draw(scenes[i], *size, rng)) for i in chunk]
            for i, latent in zip(chunk, encode(vae, torch.stack(pictures)), strict=True):
                latents[i] = latent.half()
    return latents
