"""What the transformer learns from: captioned scenes in many sizes, as tokens of latents.

Pictures of like size share a batch, so that every step costs about the same. All batches of a
group have one shape, and compiled code is made once for each.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from demo_model.architecture import TRAINED, build_tokenizer
from demo_model.batched import BLOCK, Pictures, pack
from demo_model.captions import caption
from demo_model.pictures import draw_all, draw_scene
from demo_model.scenes import sample_scene
from demo_model.train_vae import encode

SIDES = range(96, 257, 16)  # pixels
CAPTION_TOKENS = 64  # longer captions are cut
WORDINGS = 4  # of each scene
AT_ONCE = 2048  # pictures drawn before they are encoded
Size = tuple[int, int]  # width and height in pixels


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
    return size[0] // TRAINED.token * (size[1] // TRAINED.token)


def _sizes(above: int, most: int) -> tuple[Size, ...]:
    every = [(width, height) for width in SIDES for height in SIDES]
    return tuple(size for size in every if above < tokens_of(size) <= most)


USUAL: Size = (128, 128)
USUAL_SIZE = Group((USUAL,), 256, 32, 1.0)
ALL_SIZES = (
    Group(_sizes(0, 256), 256, 32, 0.5, usual_share=0.4),
    Group(_sizes(256, 512), 512, 20, 0.25),
    Group(_sizes(512, 1024), 1024, 12, 0.25),
)


def sample_size(group: Group, rng: random.Random) -> Size:
    return USUAL if rng.random() < group.usual_share else rng.choice(group.sizes)


class TextInput:
    """Captions as the pipeline tokenizes them."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer()

    def __call__(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids [n, CAPTION_TOKENS], and how many of them each caption has."""
        texts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": c}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=True,
            )
            for c in captions
        ]
        tokens = self.tokenizer(
            texts,
            padding="max_length",
            max_length=CAPTION_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        return tokens.input_ids, tokens.attention_mask.sum(1)


@dataclass(frozen=True)
class Batch:
    """Pictures with captions.

    Attributes:
        ids: [n, 32 or 64] token ids of the captions.
        words: [n], how many of them count.
        alike: all pictures and captions fill their length to the last block of 32.
    """

    pictures: Pictures
    ids: torch.Tensor
    words: torch.Tensor
    alike: bool


class GroupSet:
    """The scenes of one group: pictures encoded once, kept on the device, drawn in batches."""

    def __init__(
        self,
        group: Group,
        count: int,
        vae: Any,
        rng: random.Random,
        style: str,
        processes: int,
        text: TextInput,
    ) -> None:
        self.group = group
        self.device = next(vae.parameters()).device
        self.scenes = [sample_scene(rng) for _ in range(count)]
        sizes = [sample_size(group, rng) for _ in range(count)]
        self._kinds = sorted(set(sizes))
        self._kind = torch.tensor([self._kinds.index(size) for size in sizes])
        self._counts = torch.tensor([tokens_of(size) for size in self._kinds])
        self._places = torch.stack([_places(size, group.tokens) for size in self._kinds])
        wordings = [caption(scene, rng) for scene in self.scenes for _ in range(WORDINGS)]
        self._ids, self._words = text(["", *wordings])
        self._tokens = self._encode(vae, style, rng.getrandbits(32), processes)
        self._places_there = self._places.to(self.device)

    def _encode(self, vae: Any, style: str, seed: int, processes: int) -> torch.Tensor:
        """[count, tokens, values] in half precision, encoded together where sizes agree."""
        values = 4 * vae.config.latent_channels
        kept = torch.zeros(
            len(self.scenes), self.group.tokens, values, dtype=torch.float16, device=self.device
        )
        for kind, (width, height) in enumerate(self._kinds):
            same = (self._kind == kind).nonzero()[:, 0].tolist()
            for start in range(0, len(same), AT_ONCE):
                chunk = same[start : start + AT_ONCE]
                asked = [(self.scenes[i], style, width, height, f"{seed} {i}") for i in chunk]
                pictures = torch.from_numpy(draw_all(draw_scene, asked, processes))
                tokens = pack(encode(vae, pictures)).half()
                kept[torch.tensor(chunk, device=self.device), : tokens.shape[1]] = tokens
        return kept

    def batch(self, count: int, unsaid: float) -> Batch:
        """Random pictures, `unsaid` of them without a caption; by torch's random numbers."""
        picks = torch.randint(len(self.scenes), (count,))
        wordings = 1 + picks * WORDINGS + torch.randint(WORDINGS, (count,))
        wordings[torch.rand(count) < unsaid] = 0
        kinds, words = self._kind[picks], self._words[wordings]
        counts = self._counts[kinds]
        room = BLOCK if int(words.max()) <= BLOCK else CAPTION_TOKENS
        full = int(counts.min()) > self.group.tokens - BLOCK and int(words.min()) > room - BLOCK
        there = self.device
        pictures = Pictures(
            self._tokens[picks.to(there)].float(),
            self._places_there[kinds.to(there)],
            counts.to(there),
        )
        return Batch(pictures, self._ids[wordings, :room].to(there), words.to(there), full)


class TrainingSet:
    """`count` scenes, of which each group gets its share of the training samples."""

    def __init__(
        self,
        groups: Sequence[Group],
        count: int,
        vae: Any,
        seed: int,
        style: str = "",
        factor: float = 1.0,
        processes: int = 1,
    ) -> None:
        """
        Args:
            factor: of the batch sizes.
        """
        rng = random.Random(seed)
        text = TextInput()
        samples = [g.batch * g.share for g in groups]
        self._factor = factor
        self.sets = [
            GroupSet(g, round(count * n / sum(samples)), vae, rng, style, processes, text)
            for g, n in zip(groups, samples, strict=True)
        ]

    def batch(self, rng: random.Random, unsaid: float = 0.0) -> Batch:
        """The next batch, from a group drawn by its share of the steps."""
        chosen = rng.choices(self.sets, weights=[s.group.share for s in self.sets])[0]
        return chosen.batch(max(1, round(chosen.group.batch * self._factor)), unsaid)


def _places(size: Size, length: int) -> torch.Tensor:
    """[length, 2], row and column of each token; zeros behind them."""
    columns, rows = (side // TRAINED.token for side in size)
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return torch.cat([grid, grid.new_zeros(length - len(grid), 2)])


def pixels_of(image: Image.Image) -> torch.Tensor:
    """[height, width, 3] uint8 of a picture."""
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(image.height, image.width, 3)
