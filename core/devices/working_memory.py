"""What a model needs beside its weights while it works: upper estimates, from its configs.

Without gradients a layer's tensors go as soon as the next one has read them, so that the largest
moment decides, however many layers there are. The factors are what torch's own bookkeeping says of
the true classes at full width, rounded up (tests/test_memory_needs.py measures them again):

- Denoising by a transformer: 5 x (width + inner width) numbers a token. FLUX.1 2.9, Qwen-Image 2.8,
  Z-Image 4.3.
- Denoising by a UNet: 24 numbers a latent pixel and channel of its first level. SDXL 15.8.
- Decoding: 5 pictures in the channels that come into the last level of the VAE. FLUX.1 and SDXL
  3 of torch's own; with what cuDNN works in, Z-Image took 4.2 to 4.9 on an H100, 0.2 to 0.5 GiB
  more than a multiple of its pixels. A VAE for video pads each of them to three frames and keeps
  what its convolutions saw last: 11 (Qwen-Image 9 of torch's own).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.checkpoints.checkpoint import Checkpoint, Component

TRANSFORMER = 5
UNET = 24
DECODING, DECODING_VIDEO = 5, 11
TEXT_TOKENS = 1024  # of a prompt with its template; what families take at most, or nearly
QUESTION_TOKENS = 2048  # of a judge's question without pictures
USUAL_SIDE = 1024  # pixels, where neither tasks nor settings say a size
USUAL_WIDTH = 256  # channels into a VAE's last level, where its config has another form
# Pipelines that compute a step's passes (with and without prompt) one after the other.
_PASSES_APART = ("Qwen", "Flux", "Kontext")


@dataclass(frozen=True)
class Demand:
    """The most that a task asks of a model; how many run at once is for the worker to find out.

    Attributes:
        sources: pictures that an editor sees, or a judge.
        guided: each step is computed with and without the prompt.
        lora_bytes: of all LoRAs that stay loaded.
        new_tokens: of a judge's answer.
    """

    width: int = USUAL_SIDE
    height: int = USUAL_SIDE
    sources: int = 0
    guided: bool = True
    lora_bytes: int = 0
    new_tokens: int = 0

    @property
    def pixels(self) -> int:
        return self.width * self.height


def working_bytes(part: Component, whole: Checkpoint, demand: Demand, number: int) -> int:
    """Bytes that a component needs beside its weights.

    Args:
        number: bytes of one number.
    """
    match part.kind:
        case "denoiser":
            return _denoising(part, whole, demand) * number
        case "vae":
            return _decoding(part, demand) * number
        case "text":
            return _reading(part, TEXT_TOKENS) * number
        case "judge":
            return _judging(part, demand) * number
        case "other":
            return 0


def _denoising(part: Component, whole: Checkpoint, demand: Demand) -> int:
    apart = any(name in whole.pipeline for name in _PASSES_APART)
    passes = 2 if demand.guided and not apart else 1
    vaes = whole.of_kind("vae")
    scale = _scale(vaes[0].config) if vaes else 8
    levels = _numbers(part.config, "block_out_channels")
    if levels:
        return passes * UNET * levels[0] * demand.pixels // scale**2
    side = _token_side(part, whole)
    tokens = math.ceil(demand.pixels / side**2) * (1 + demand.sources) + TEXT_TOKENS
    return passes * TRANSFORMER * tokens * (part.weights.width + part.weights.widest)


def tokens_of(whole: Checkpoint) -> float:
    """Tokens that a model's denoiser computes with for a million pixels of the picture.

    Most numbers of a UNet are in its lowest level, whose positions count as tokens.
    """
    part = whole.of_kind("denoiser")[0]
    levels = _numbers(part.config, "block_out_channels")
    vaes = whole.of_kind("vae")
    if levels:
        side = (_scale(vaes[0].config) if vaes else 8) * 2 ** (len(levels) - 1)
    else:
        side = _token_side(part, whole)
    return 1e6 / float(side) ** 2


def _token_side(part: Component, whole: Checkpoint) -> int:
    """Pixels of the picture's side that one token of a transformer stands for."""
    vaes = whole.of_kind("vae")
    config = vaes[0].config if vaes else {}
    return (_scale(config) if vaes else 8) * _patch(part.config, config)


def _scale(vae: Mapping[str, Any]) -> int:
    """How many pixels of the picture's side one latent pixel stands for."""
    if isinstance(vae.get("temperal_downsample"), list):
        return int(2 ** len(vae["temperal_downsample"]))
    levels = _numbers(vae, "block_out_channels") or _numbers(vae, "encoder_block_out_channels")
    return 2 ** (len(levels) - 1) if levels else 8


def _patch(config: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    """How many latent pixels of a side become one token, packed before the model or in it."""
    taken = config.get("in_channels")
    latent = vae.get("latent_channels") or vae.get("z_dim")
    if isinstance(taken, int) and isinstance(latent, int) and taken >= 4 * latent > 0:
        return math.isqrt(taken // latent)
    size = config.get("patch_size")
    sizes = [size] if isinstance(size, int) else _numbers(config, "all_patch_size")
    return max(1, min(sizes, default=2))


def _decoding(part: Component, demand: Demand) -> int:
    config = part.config
    levels = _numbers(config, "block_out_channels") or _numbers(
        config, "decoder_block_out_channels"
    )
    video = isinstance(config.get("dim_mult"), list)
    if video:
        levels = [int(config.get("base_dim", 96)) * factor for factor in config["dim_mult"]]
    channels = levels[min(1, len(levels) - 1)] if levels else USUAL_WIDTH
    return (DECODING_VIDEO if video else DECODING) * channels * demand.pixels


def _reading(part: Component, tokens: int) -> int:
    """A text encoder keeps what came out of each of its layers: one of them is the prompt."""
    config = part.config.get("text_config") or part.config
    layers = config.get("num_hidden_layers") or config.get("num_layers") or 32
    weights = part.weights
    return tokens * (TRANSFORMER * (weights.width + weights.widest) + int(layers) * weights.width)


def _judging(part: Component, demand: Demand) -> int:
    """One question about its pictures: what layers compute, and what the answer looks back at."""
    text = part.config.get("text_config") or part.config
    vision = part.config.get("vision_config") or {}
    patches = demand.sources * math.ceil(demand.pixels / int(vision.get("patch_size") or 16) ** 2)
    tokens = patches // int(vision.get("spatial_merge_size") or 2) ** 2 + QUESTION_TOKENS
    heads = int(text.get("num_key_value_heads") or text.get("num_attention_heads") or 0)
    kept = 2 * int(text.get("num_hidden_layers") or 0) * heads * int(text.get("head_dim") or 128)
    seen = int(vision.get("hidden_size") or 0) + int(vision.get("intermediate_size") or 0)
    widths = part.weights.width + part.weights.widest
    computed = max(TRANSFORMER * tokens * widths, TRANSFORMER * patches * seen)
    return computed + (tokens + demand.new_tokens) * kept


def _numbers(config: Mapping[str, Any], name: str) -> list[int]:
    value = config.get(name)
    return [int(v) for v in value if isinstance(v, int)] if isinstance(value, list) else []
