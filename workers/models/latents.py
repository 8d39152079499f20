"""From latents in the middle of the denoising to a small picture of what they will be.

The clean latents follow from the noise schedule; for flow matching x0 = x - sigma * v. They are
averaged down, to half of the picture's side for one, and the model's own VAE decodes them. That
costs a fraction of one decoding, needs no table of colours for each kind of latents, and is
right for models that nobody has heard of yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from typing import Any

import torch
from accelerate.hooks import CpuOffload

from workers.models.vae_tiles import pixels_per_latent
from workers.previews import LONGEST_SIDE

SHORTEST_SIDE = 128  # pixels, of a preview; larger ones have half of their picture's side at most
WITHOUT_CLEAN_RESULT = "TCD"  # its second result is less noisy, and not clean


def clean_latents(scheduler: Any, taken: dict[str, Any], result: Any) -> torch.Tensor:
    """Latents without the noise that is still in them, by the model's newest prediction.

    Args:
        taken: arguments of the scheduler's `step` that was just made.
        result: what it returned.

    Returns:
        float32, in the shape of the sample; with a scheduler that is not understood, the latents
        as they are.
    """
    sample: torch.Tensor = taken["sample"].float()
    output: torch.Tensor = taken["model_output"].float()
    name, config = type(scheduler).__name__, scheduler.config
    predicted = config.get("prediction_type")
    if name.startswith("FlowMatch") or predicted == "flow_prediction":
        # A tensor: to read the number would be to wait for the device.
        sigma: torch.Tensor = scheduler.sigmas[scheduler.step_index - 1]
        return sample - sigma.to(sample) * output
    if len(result) > 1 and not name.startswith(WITHOUT_CLEAN_RESULT):
        clean: torch.Tensor = result[1]  # what the scheduler itself takes for the clean ones
        return clean.float()
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is not None and predicted in ("epsilon", "v_prediction"):
        alpha = float(alphas[int(taken["timestep"])])
        kept, noise = sqrt(alpha), sqrt(1 - alpha)
        if predicted == "epsilon":
            return (sample - noise * output[:, : sample.shape[1]]) / kept
        return kept * sample - noise * output
    latents: torch.Tensor = result[0]
    return latents.float()


def decode_small(pipeline: Any, latents: torch.Tensor, size: tuple[int, int] | None) -> Any:
    """Decode a small version of latents, as the pipeline would decode them in full.

    Args:
        latents: [n, …] as the pipeline hands them to its scheduler.
        size: height and width of the picture in pixels; needed where latents are packed.

    Returns:
        [n, 3, height, width] in -1..1, and a bit beyond; it may be still on its way.
    """
    vae = pipeline.vae
    latents = _as_encoded(vae, _unpacked(pipeline, latents, size))
    has_frames = latents.dim() == 5  # a picture is a video of one frame to some VAEs
    small = _averaged(latents[:, :, 0] if has_frames else latents, pixels_per_latent(vae))
    small = small.unsqueeze(2) if has_frames else small
    overflows = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    with _beside_the_denoiser(vae):
        if overflows:
            vae.to(torch.float32)
        try:
            # Not by the pipeline's own `vae.decode`, which is watched for lack of memory.
            image: torch.Tensor = type(vae).decode(vae, small.to(vae.dtype), return_dict=False)[0]
        finally:
            if overflows:
                vae.to(torch.float16)
    return (image[:, :, 0] if image.dim() == 5 else image)[:, :3]


def _unpacked(pipeline: Any, latents: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    """Latents as [n, channels, (1,) rows, columns], of whatever the pipeline keeps them in."""
    if latents.dim() != 3:
        return latents
    assert size is not None
    height, width = size
    if hasattr(pipeline, "_unpack_latents"):
        scale = pipeline.vae_scale_factor
        unpacked: torch.Tensor = pipeline._unpack_latents(latents, height, width, scale)
        return unpacked
    # FLUX.2 keeps a row of tokens, each of 2 x 2 latents.
    token = 2 * pipeline.vae_scale_factor  # pixels
    rows, columns = height // token, width // token
    return latents.transpose(1, 2).reshape(len(latents), -1, rows, columns)


def _as_encoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents in the numbers that the VAE decodes, of those that the denoiser works with."""
    config = vae.config
    norm = getattr(vae, "bn", None)
    if norm is not None:  # FLUX.2: by patches of 2 x 2
        mean = norm.running_mean.to(latents).view(1, -1, 1, 1)
        variance = norm.running_var.to(latents).view(1, -1, 1, 1)
        latents = latents * torch.sqrt(variance + config.batch_norm_eps) + mean
        return torch.nn.functional.pixel_shuffle(latents, 2)
    scale = config.get("scaling_factor") or 1.0
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        shape = (1, -1, *(1,) * (latents.dim() - 2))
        # Not blocking: else the host would wait for all that the device has to do before.
        mean, deviation = (
            torch.tensor(numbers).to(latents, non_blocking=True).view(shape)
            for numbers in (config.latents_mean, config.latents_std)
        )
        return latents * deviation / scale + mean
    return latents / scale + (config.get("shift_factor") or 0.0)


def _averaged(latents: torch.Tensor, ratio: int) -> torch.Tensor:
    """Latents of the same picture in small. `ratio`: pixels to a latent's side."""
    rows, columns = latents.shape[-2:]
    side = max(rows, columns) * ratio
    shrinking = max(1.0, side / min(LONGEST_SIDE, max(SHORTEST_SIDE, side / 2)))
    size = (max(1, int(rows / shrinking)), max(1, int(columns / shrinking)))
    return torch.nn.functional.interpolate(latents, size=size, mode="area")


@contextmanager
def _beside_the_denoiser(vae: Any) -> Iterator[None]:
    """Let a VAE that waits in host memory come to the device and go, and the denoiser stay there.

    Offloading by components would move that out for it, and in again for the next step.
    """
    hook = getattr(vae, "_hf_hook", None)
    if not isinstance(hook, CpuOffload):
        yield
        return
    waits = vae.device.type == "cpu"
    before, hook.prev_module_hook = hook.prev_module_hook, None
    try:
        yield
    finally:
        hook.prev_module_hook = before
        if waits:
            hook.init_hook(vae)
