"""Trains the autoencoder: `python -m demo_model.train_vae --out FOLDER`."""

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageResidualBlock
from diffusers.models.resnet import ResnetBlock2D

from demo_model.architecture import LATENT_CHANNELS, build_vae
from demo_model.scenes import render, sample_scene
from demo_model.styles import STYLES, render_styled

SIDE = 128  # pixels
STYLED_SHARE = 0.3  # of the pictures: what a LoRA shall draw, the decoder must know
KL_WEIGHT = 1e-5  # 2e-3 left a quarter of the channels pure noise
CROP = 64  # pixels of a training crop in the first phase: four times the steps
CROP_BATCH, WHOLE_BATCH = 16, 4
PEAK_RATE = 2e-3
FIRST_LOG_VARIANCE = -6.0


def training_pictures(count: int, seed: int) -> torch.Tensor:
    """[count, 128, 128, 3] uint8: scenes, some of them in a style."""
    rng = random.Random(seed)
    pictures = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for i in range(count):
        scene = sample_scene(rng, trained_pairs_only=False)
        if rng.random() < STYLED_SHARE:
            pictures[i] = np.asarray(render_styled(scene, rng.choice(STYLES), SIDE, rng=rng))
        else:
            pictures[i] = np.asarray(render(scene, SIDE, rng=rng))
    return torch.from_numpy(pictures)


def to_model_range(pictures: torch.Tensor) -> torch.Tensor:
    """[n, h, w, 3] uint8 to [n, 3, h, w] floats in -1..1."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def train(vae: Any, steps: int, pictures: torch.Tensor) -> None:
    """In place. Crops for 70 % of the steps, then whole pictures: their statistics differ.

    Args:
        vae: with the interface of `AutoencoderKL`.
    """
    channels_last(vae)
    with torch.no_grad():  # begin with little noise: from unit noise training may not take off
        vae.encoder.conv_out.bias[LATENT_CHANNELS:] = FIRST_LOG_VARIANCE
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=PEAK_RATE, weight_decay=1e-4, betas=(0.9, 0.99)
    )
    started = time.monotonic()
    with compiled_blocks(vae):
        for step in range(steps):
            x = _batch(pictures, whole=step >= 0.7 * steps)
            loss, mse = _loss(vae, x)
            update(optimizer, loss, PEAK_RATE * _rate(step, steps))
            if step % 200 == 0:
                decibels, seconds = -10 * np.log10(mse / 4), time.monotonic() - started
                print(f"vae step {step} psnr {decibels:.2f} {seconds:.0f} s", flush=True)
    vae.to(memory_format=torch.contiguous_format).eval()


def channels_last(module: torch.nn.Module) -> None:
    """The memory format that convolutions in two dimensions like best, for their weights."""
    for parameter in module.parameters():
        if parameter.dim() == 4:  # `Module.to` would refuse a kernel with a time axis
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def compiled_blocks(module: Any) -> Iterator[None]:
    """Compile the residual blocks below `module`, which takes a third off a training step.

    Not the whole decoder: compiled for a CPU, its last upsampling passes no gradient on
    (torch 2.13).
    """
    torch._dynamo.config.cache_size_limit = 64  # one entry per block and shape
    blocks = [m for m in module.modules() if isinstance(m, ResnetBlock2D | QwenImageResidualBlock)]
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> None:
    """One optimizer step at a learning rate, with the gradient's norm clipped to 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def _rate(step: int, steps: int) -> float:
    """Warm-up, plateau, then linearly down from half-way."""
    return min(1.0, (step + 1) / 50) * min(1.0, max(0.02, 2 * (1 - step / steps)))


def _batch(pictures: torch.Tensor, whole: bool) -> torch.Tensor:
    picks = torch.randint(len(pictures), (WHOLE_BATCH if whole else CROP_BATCH,))
    chosen = pictures[picks]
    if not whole:
        tops = torch.randint(0, SIDE - CROP + 1, (CROP_BATCH,)).tolist()
        lefts = torch.randint(0, SIDE - CROP + 1, (CROP_BATCH,)).tolist()
        corners = zip(chosen, tops, lefts, strict=True)
        chosen = torch.stack([p[t : t + CROP, x : x + CROP] for p, t, x in corners])
    return to_model_range(chosen).contiguous(memory_format=torch.channels_last)


def _loss(vae: Any, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Pixels, edges (differences of neighbours), and a little KL; also the plain MSE."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(x).latent_dist
        mean, log_variance = posterior.mean, posterior.logvar
        noise = torch.randn_like(mean) * (0.5 * log_variance).exp()
        y = vae.decode(mean + noise).sample
    y, mean, log_variance = y.float(), mean.float(), log_variance.float()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    mse = F.mse_loss(y, x)
    return F.l1_loss(y, x) + mse + 0.5 * edge_loss(y, x) + KL_WEIGHT * kl, mse.item()


def edge_loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Mean difference of the differences between neighbours."""
    return F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))


@torch.no_grad()
def encode(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """[n, 16, h / 8, w / 8] latent means of [n, h, w, 3] uint8 pictures.

    In bfloat16, four times as fast: off by 0.005 of a deviation, and noise hides more.
    """
    latents = []
    for chunk in pictures.split(64):
        x = to_model_range(chunk).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents.append(vae.encode(x).latent_dist.mean.float().contiguous())
    return torch.cat(latents)


@torch.no_grad()
def whiten(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Fold each channel's deviation into the convolutions: AutoencoderKL scales by one number."""
    deviation = latents.std((0, 2, 3))
    into, out_of = vae.decoder.conv_in, vae.encoder.conv_out
    out_of.weight[:LATENT_CHANNELS] /= deviation[:, None, None, None]
    out_of.bias[:LATENT_CHANNELS] /= deviation
    out_of.bias[LATENT_CHANNELS:] -= 2 * deviation.log()  # the log-variances
    into.weight *= deviation[None, :, None, None]


@torch.no_grad()
def psnr(vae: Any, pictures: torch.Tensor) -> float:
    """Mean PSNR in dB of pictures through the autoencoder, on 8-bit values."""
    values = []
    for chunk in pictures.split(16):
        x = to_model_range(chunk)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        mse = ((y - x) * 127.5).pow(2).mean((1, 2, 3))
        values.append(10 * torch.log10(255**2 / mse.clamp(min=1e-6)))
    return float(torch.cat(values).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pictures = training_pictures(options.pictures, options.seed)
    torch.manual_seed(options.seed)
    vae = build_vae()
    train(vae, options.steps, pictures)
    whiten(vae, encode(vae, pictures[:2000]))
    print(f"PSNR on unseen scenes: {psnr(vae, training_pictures(300, options.seed + 1)):.2f} dB")
    vae.save_pretrained(options.out)


if __name__ == "__main__":
    main()
