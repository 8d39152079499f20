"""Qwen-Image's autoencoder for single frames, with the interface of `AutoencoderKL`.

It is made for video: its convolutions are causal in time. For one frame only the last time
slice of a kernel meets anything but padding, so training computes the same in two dimensions,
at a third of the work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d


@dataclass
class _Posterior:
    mean: torch.Tensor
    logvar: torch.Tensor


@dataclass
class _Encoded:
    latent_dist: _Posterior


@dataclass
class _Decoded:
    sample: torch.Tensor


class FrameVae(torch.nn.Module):
    """Pictures [n, 3, h, w] to latents [n, 16, h / 8, w / 8] and back."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    @property
    def encoder(self) -> Any:
        return self.vae.encoder

    @property
    def decoder(self) -> Any:
        return self.vae.decoder

    def encode(self, x: torch.Tensor) -> _Encoded:
        moments = self.vae.quant_conv(self.vae.encoder(x.unsqueeze(2)))
        mean, logvar = moments.squeeze(2).chunk(2, dim=1)
        return _Encoded(_Posterior(mean, logvar.clamp(-30.0, 20.0)))

    def decode(self, z: torch.Tensor) -> _Decoded:
        return _Decoded(self.vae.decoder(self.vae.post_quant_conv(z.unsqueeze(2))).squeeze(2))


@contextmanager
def flat_convolutions() -> Iterator[None]:
    """Compute causal convolutions of single frames in two dimensions."""
    original = QwenImageCausalConv3d.forward

    def flat(self: Any, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        padded = F.pad(x.squeeze(2), self._padding[:4])
        kernel = self.weight[:, :, -1]
        return F.conv2d(padded, kernel, self.bias, self.stride[1:]).unsqueeze(2)

    QwenImageCausalConv3d.forward = flat
    try:
        yield
    finally:
        QwenImageCausalConv3d.forward = original
