"""How autoencoders are trained: the generator's and the editor's."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageResidualBlock
from diffusers.models.resnet import ResnetBlock2D
from PIL import Image

from demo_model.pictures import draw_all, draw_scene, sheet
from demo_model.scenes import sample_scene
from demo_model.stage import sheet_file, state_file
from demo_model.styles import STYLES
from demo_model.training_loop import Loop

SIDE = 128  # pixels
STYLED_SHARE = 0.3  # of the pictures: what a LoRA shall draw, the decoder must know
KL_WEIGHT = 1e-5  # 2e-3 left a quarter of the channels pure noise
CROP = 64  # pixels of a training crop in the first phase on a CPU: four times the steps
CROPS_UNTIL = 0.7  # of the training
PEAK_RATE = 2e-3
FIRST_LOG_VARIANCE = -6.0
# Of the time until the stage has to be done, the encoder's end; the decoder is tuned in the rest.
ENCODER_SHARE = 0.7
SAVING = 4.0  # seconds before that end that saving takes


def training_pictures(count: int, seed: int, processes: int = 1) -> torch.Tensor:
    """[count, 128, 128, 3] uint8: scenes, some of them in a style."""
    rng = random.Random(seed)
    drawn = []
    for number in range(count):
        scene = sample_scene(rng, trained_pairs_only=False)
        style = rng.choice(STYLES) if rng.random() < STYLED_SHARE else ""
        drawn.append((scene, style, SIDE, SIDE, f"{seed} {number}"))
    return torch.from_numpy(draw_all(draw_scene, drawn, processes))


def to_model_range(pictures: torch.Tensor) -> torch.Tensor:
    """[n, h, w, 3] uint8 to [n, 3, h, w] floats in -1..1."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_pictures(x: torch.Tensor) -> list[Image.Image]:
    """Back from [n, 3, h, w]."""
    pixels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()
    return [Image.fromarray(one.numpy()) for one in pixels]


def train(
    vae: Any, steps: int, pictures: torch.Tensor, seed: int, out: Path, until: float | None = None
) -> None:
    """In place. On a CPU, first crops, then whole pictures: their statistics differ.

    Args:
        vae: with the interface of `AutoencoderKL`, on the device to train on.
    """
    device = pictures.device
    channels_last(vae)
    with torch.no_grad():  # begin with little noise: from unit noise training may not take off
        bias = vae.encoder.conv_out.bias
        bias[len(bias) // 2 :] = FIRST_LOG_VARIANCE
    optimizer = adam(vae.parameters(), PEAK_RATE, weight_decay=1e-4, betas=(0.9, 0.99))
    loop = Loop(
        "vae",
        steps,
        seed,
        {"vae": vae, "optimizer": optimizer},
        state_file(out, "encoder"),
        until,
        lambda: show(vae, pictures[:4], sheet_file(out)),
    )
    on_gpu = device.type == "cuda"
    with compiled_blocks(vae), torch.backends.cudnn.flags(benchmark=True):
        for step in loop:
            whole = on_gpu or loop.done >= CROPS_UNTIL
            loss, mse = _loss(vae, _batch(pictures, whole, (64 if on_gpu else 4) if whole else 16))
            update(optimizer, loss, PEAK_RATE * loop.rate(step, warm_up=50))
            loop.note(mse.detach(), "squared error")
    vae.to(memory_format=torch.contiguous_format).eval()


def adam(
    parameters: Any, rate: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.AdamW:
    """In one kernel where there is a GPU."""
    chosen = [p for p in parameters if p.requires_grad]
    return torch.optim.AdamW(
        chosen, lr=rate, weight_decay=weight_decay, betas=betas, fused=chosen[0].is_cuda or None
    )


def channels_last(module: torch.nn.Module) -> None:
    """The memory format that convolutions in two dimensions like best, for their weights."""
    for parameter in module.parameters():
        if parameter.dim() == 4:  # `Module.to` would refuse a kernel with a time axis
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def compiled_blocks(module: Any) -> Iterator[None]:
    """Compile the residual blocks below `module` on a CPU: a third less for a training step.

    Not the whole decoder: compiled for a CPU, its last upsampling passes no gradient on
    (torch 2.13). On a GPU compiling takes longer than it saves in a few minutes.
    """
    torch._dynamo.config.cache_size_limit = 64  # one entry per block and shape
    blocks = [m for m in module.modules() if isinstance(m, ResnetBlock2D | QwenImageResidualBlock)]
    on_cpu = all(p.device.type == "cpu" for p in module.parameters())
    for block in blocks if on_cpu else ():
        block.forward = torch.compile(block.forward, dynamic=False)
    try:
        yield
    finally:
        for block in blocks if on_cpu else ():
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


def _batch(pictures: torch.Tensor, whole: bool, count: int) -> torch.Tensor:
    picks = torch.randint(len(pictures), (count,)).to(pictures.device)
    chosen = pictures[picks]
    if not whole:
        tops = torch.randint(0, SIDE - CROP + 1, (count,)).tolist()
        lefts = torch.randint(0, SIDE - CROP + 1, (count,)).tolist()
        corners = zip(chosen, tops, lefts, strict=True)
        chosen = torch.stack([p[t : t + CROP, x : x + CROP] for p, t, x in corners])
    return to_model_range(chosen).contiguous(memory_format=torch.channels_last)


def _loss(vae: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels, edges (differences of neighbours), and a little KL; also the plain MSE."""
    with torch.autocast(x.device.type, torch.bfloat16):
        posterior = vae.encode(x).latent_dist
        mean, log_variance = posterior.mean, posterior.logvar
        noise = torch.randn_like(mean) * (0.5 * log_variance).exp()
        y = vae.decode(mean + noise).sample
    y, mean, log_variance = y.float(), mean.float(), log_variance.float()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    mse = F.mse_loss(y, x)
    return F.l1_loss(y, x) + mse + 0.5 * edge_loss(y, x) + KL_WEIGHT * kl, mse


def edge_loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Mean difference of the differences between neighbours."""
    return F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))


@torch.no_grad()
def encode(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Latent means, on the model's device, of [n, h, w, 3] uint8 pictures.

    In bfloat16, four times as fast: off by 0.005 of a deviation, and noise hides more.
    """
    device = next(vae.parameters()).device
    latents = []
    for chunk in pictures.split(64):
        x = to_model_range(chunk.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            latents.append(vae.encode(x).latent_dist.mean.float().contiguous())
    return torch.cat(latents)


@torch.no_grad()
def whiten(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Fold each channel's deviation into the convolutions: AutoencoderKL scales by one number."""
    deviation = latents.std((0, 2, 3))
    channels = len(deviation)
    into, out_of = vae.decoder.conv_in, vae.encoder.conv_out
    out_of.weight[:channels] /= deviation[:, None, None, None]
    out_of.bias[:channels] /= deviation
    out_of.bias[channels:] -= 2 * deviation.log()  # the log-variances
    into.weight *= deviation[None, :, None, None]


@torch.no_grad()
def psnr(vae: Any, pictures: torch.Tensor) -> float:
    """Mean PSNR in dB of pictures through the autoencoder, on 8-bit values."""
    device = next(vae.parameters()).device
    values = []
    for chunk in pictures.split(16):
        x = to_model_range(chunk.to(device))
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        mse = ((y - x) * 127.5).pow(2).mean((1, 2, 3))
        values.append(10 * torch.log10(255**2 / mse.clamp(min=1e-6)))
    return float(torch.cat(values).mean())


@torch.no_grad()
def show(vae: Any, pictures: torch.Tensor, file: Path) -> None:
    """Pictures above what the autoencoder makes of them."""
    x = to_model_range(pictures)
    y = vae.decode(vae.encode(x).latent_dist.mean).sample
    sheet([to_pictures(x), to_pictures(y)]).save(file)


def course_ends(until: float | None) -> Sequence[float | None]:
    """When to end the encoder's course, and the decoder's."""
    if until is None:
        return None, None
    now, end = time.time(), until - SAVING
    return now + ENCODER_SHARE * (end - now), end
