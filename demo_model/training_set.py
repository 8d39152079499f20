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
    """Pictures of up to `tokens` tokens, `batch` at a time, in `share` of the steps."""

    sizes: tuple[Size, ...]
    tokens: int
    batch: int
    share: float
    usual_share: float = 0.0  # of its pictures have the usual size


def tokens_of(size: Size) -> int:
    """Image tokens of a picture, before padding."""
    return size[0] // PATCH * (size[1] // PATCH)


def _sizes(above: int, most: int) -> tuple[Size, ...]:
    every = [(width, height) for width in SIDES for height in SIDES]
    return tuple(size for size in every if above < tokens_of(size) <= most)


USUAL: Size = (128, 128)
USUAL_SIZE = Group((USUAL,), 64, 32, 1.0)
ALL_SIZES = (
    Group(_sizes(0, 64), 64, 32, 0.5, usual_share=0.4),
    Group(_sizes(64, 128), 128, 20, 0.25),
    Group(_sizes(128, 256), 256, 12, 0.25),
)


def sample_size(group: Group, rng: random.Random) -> Size:
    return USUAL if rng.random() < group.usual_share else rng.choice(group.sizes)


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

    def __init__(
        self,
        groups: Sequence[Group],
        count: int,
        vae: Any,
        draw: Draw,
        seed: int,
        halvings: int = 0,
    ) -> None:
        rng = random.Random(seed)
        groups = [replace(g, batch=g.batch >> halvings) for g in groups]
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
