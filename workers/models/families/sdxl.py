"""Stable Diffusion and SDXL."""

from workers import lora_aliases
from workers.models.family import DENOISERS, Denoiser

DENOISERS.add("UNet2DConditionModel", Denoiser(other_names=lora_aliases.unet))
