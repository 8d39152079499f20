"""Z-Image's forward pass for training: all pictures of a batch in one go.

`ZImageTransformer2DModel.forward` takes a list of pictures and cuts, pads and joins them one by
one, which on a GPU takes longer than its arithmetic. Here a batch comes cut and padded. Tests
compare it with the original.
"""

from dataclasses import dataclass
from typing import Any

import torch

BLOCK = 32  # the transformer pads a picture's tokens, and a caption's, to a multiple of this
PATCHES = "2-1"  # the transformer's name for patches of 2 x 2 latents


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[n, c, h, w] to [n, h / 2 * w / 2, 4 c], as the transformer cuts pictures into tokens."""
    n, c, h, w = latents.shape
    blocks = latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return blocks.reshape(n, h // 2 * (w // 2), 4 * c)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Back to [n, c, height, width]."""
    n, _, values = tokens.shape
    blocks = tokens.view(n, height // 2, width // 2, 2, 2, values // 4)
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(n, values // 4, height, width)


def padded(count: torch.Tensor) -> torch.Tensor:
    """Tokens with the padding that the transformer sees."""
    return (count + BLOCK - 1) // BLOCK * BLOCK


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures cut into tokens, all padded to one length.

    Attributes:
        tokens: [n, length, 4 c].
        places: [n, length, 2], row and column of each token.
        counts: [n], tokens of each picture.
    """

    tokens: torch.Tensor
    places: torch.Tensor
    counts: torch.Tensor

    @property
    def real(self) -> torch.Tensor:
        """[n, length], True where there is picture."""
        return _first(self.counts, self.tokens.shape[1])


def velocity(
    transformer: Any,
    pictures: Pictures,
    time: torch.Tensor,
    captions: torch.Tensor,
    words: torch.Tensor,
    alike: bool = False,
) -> torch.Tensor:
    """What the transformer predicts, as tokens [n, length, 4 c]; what is padding means nothing.

    Args:
        captions: [n, multiple of 32, width], the text encoder's output.
        words: [n], tokens of each caption.
        alike: all pictures, and all captions, fill their length to the last block of 32.
    """
    m = transformer
    given = m.t_embedder(time * m.t_scale).type_as(pictures.tokens)
    length, room = pictures.tokens.shape[1], captions.shape[1]
    said = padded(words)
    shown = padded(pictures.counts)

    x = m.all_x_embedder[PATCHES](pictures.tokens)
    x = torch.where(pictures.real[..., None], x, m.x_pad_token.to(x.dtype))
    frame = torch.where(pictures.real, said[:, None] + 1, 0)
    places = torch.where(pictures.real[..., None], pictures.places, 0)
    x_freqs = _frequencies(m, torch.cat([frame[..., None], places], -1))
    x_mask = None if alike else _first(shown, length)
    for layer in m.noise_refiner:
        x = layer(x, x_mask, x_freqs, given)

    spoken = _first(words, room)
    cap = m.cap_embedder(captions)
    cap = torch.where(spoken[..., None], cap, m.cap_pad_token.to(cap.dtype))
    order = torch.arange(1, room + 1, device=cap.device).expand(len(cap), room)
    nowhere = torch.zeros_like(order)
    cap_freqs = _frequencies(m, torch.stack([order, nowhere, nowhere], -1))
    cap_mask = None if alike else _first(said, room)
    for layer in m.context_refiner:
        cap = layer(cap, cap_mask, cap_freqs)

    whole = torch.cat([x, cap], 1)
    freqs = torch.cat([x_freqs, cap_freqs], 1)
    mask = None if x_mask is None or cap_mask is None else torch.cat([x_mask, cap_mask], 1)
    for layer in m.layers:
        whole = layer(whole, mask, freqs, given)
    out: torch.Tensor = m.all_final_layer[PATCHES](whole[:, :length], c=given)
    return out


def _first(counts: torch.Tensor, length: int) -> torch.Tensor:
    """[n, length], True for the first `counts`."""
    return torch.arange(length, device=counts.device)[None] < counts[:, None]


def _frequencies(transformer: Any, ids: torch.Tensor) -> torch.Tensor:
    """Complex rotary frequencies of positions [n, length, 3]."""
    flat: torch.Tensor = transformer.rope_embedder(ids.flatten(0, 1))
    return flat.view(*ids.shape[:2], -1)
