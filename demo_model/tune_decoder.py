"""Sharpens the decoder: `python -m demo_model.tune_decoder --vae FOLDER --out FOLDER`.

The encoder stays as it is, so latents keep their meaning and this may run while, or after,
the transformer is trained on them.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from demo_model.train_vae import (
    channels_last,
    compiled_blocks,
    edge_loss,
    encode,
    psnr,
    to_model_range,
    training_pictures,
    update,
)

BATCH = 4
PEAK_RATE = 8e-4
LOG_MSE_WEIGHT = 0.03  # in the encoder's training it would make latents hard to generate
LATENT_NOISE = 0.05  # of unit deviation: what the transformer draws is never exact


def tune(vae: Any, pictures: torch.Tensor, steps: int, seed: int, deviation: float = 1.0) -> None:
    """Train `vae.decoder` in place on whole pictures.

    Args:
        deviation: of the latents, in units of which noise is added.
    """
    torch.manual_seed(seed)
    latents = encode(vae, pictures)
    vae.requires_grad_(False)
    decoder = vae.decoder.requires_grad_(True)
    channels_last(decoder)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=PEAK_RATE, weight_decay=1e-4)
    started = time.monotonic()
    with compiled_blocks(decoder):
        for step in range(steps):
            rate = min(1.0, (step + 1) / 30) * max(0.02, 1 - step / steps)
            picks = torch.randint(len(pictures), (BATCH,))
            x = to_model_range(pictures[picks])
            loss = _loss(vae, latents[picks], x, LATENT_NOISE * deviation)
            update(optimizer, loss, PEAK_RATE * rate)
            if step % 200 == 0:
                seconds = time.monotonic() - started
                print(f"decoder step {step} loss {loss.item():.4f} {seconds:.0f} s", flush=True)
    vae.to(memory_format=torch.contiguous_format)


def _loss(vae: Any, latents: torch.Tensor, x: torch.Tensor, noise: float) -> torch.Tensor:
    z = latents + noise * torch.randn_like(latents)
    with torch.autocast("cpu", torch.bfloat16):
        y = vae.decode(z.contiguous(memory_format=torch.channels_last)).sample
    y = y.float()
    log_mse = ((y - x).square().mean((1, 2, 3)) + 1e-5).log().mean()  # PSNR, picture by picture
    loss: torch.Tensor = F.l1_loss(y, x) + edge_loss(y, x) + LOG_MSE_WEIGHT * log_mse
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--pictures", type=int, default=8_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vae = AutoencoderKL.from_pretrained(options.vae).eval()
    tune(vae, training_pictures(options.pictures, options.seed + 2), options.steps, options.seed)
    print(f"PSNR on unseen scenes: {psnr(vae, training_pictures(300, options.seed + 1)):.2f} dB")
    vae.save_pretrained(options.out)


if __name__ == "__main__":
    main()
