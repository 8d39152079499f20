"""Sharpens an autoencoder's decoder.

The encoder stays as it is, so latents keep their meaning.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from demo_model.stage import sheet_file, state_file
from demo_model.train_vae import (
    adam,
    channels_last,
    compiled_blocks,
    edge_loss,
    encode,
    show,
    to_model_range,
    update,
)
from demo_model.training_loop import Loop

BATCH = {"cpu": 4, "cuda": 64}
PEAK_RATE = 8e-4
LOG_MSE_WEIGHT = 0.03  # in the encoder's training it would make latents hard to generate
LATENT_NOISE = 0.05  # of unit deviation: what the transformer draws is never exact


def tune(
    vae: Any,
    pictures: torch.Tensor,
    steps: int,
    seed: int,
    out: Path,
    until: float | None = None,
    deviation: float = 1.0,
) -> None:
    """Train `vae.decoder` in place on whole pictures.

    Args:
        deviation: of the latents, in units of which noise is added.
    """
    latents = encode(vae, pictures)
    vae.requires_grad_(False)
    decoder = vae.decoder.requires_grad_(True)
    channels_last(decoder)
    optimizer = adam(decoder.parameters(), PEAK_RATE, weight_decay=1e-4)
    loop = Loop(
        "decoder",
        steps,
        seed,
        {"decoder": decoder, "optimizer": optimizer},
        state_file(out, "decoder"),
        until,
        lambda: show(vae, pictures[:4], sheet_file(out)),
    )
    with compiled_blocks(decoder), torch.backends.cudnn.flags(benchmark=True):
        for step in loop:
            picks = torch.randint(len(pictures), (BATCH[pictures.device.type],))
            picks = picks.to(pictures.device)
            x = to_model_range(pictures[picks])
            loss = _loss(vae, latents[picks], x, LATENT_NOISE * deviation)
            update(optimizer, loss, PEAK_RATE * loop.rate(step, warm_up=30))
            loop.note(loss.detach())
    vae.to(memory_format=torch.contiguous_format)


def _loss(vae: Any, latents: torch.Tensor, x: torch.Tensor, noise: float) -> torch.Tensor:
    z = latents + noise * torch.randn_like(latents)
    with torch.autocast(x.device.type, torch.bfloat16):
        y = vae.decode(z.contiguous(memory_format=torch.channels_last)).sample
    y = y.float()
    log_mse = ((y - x).square().mean((1, 2, 3)) + 1e-5).log().mean()  # PSNR, picture by picture
    loss: torch.Tensor = F.l1_loss(y, x) + edge_loss(y, x) + LOG_MSE_WEIGHT * log_mse
    return loss
