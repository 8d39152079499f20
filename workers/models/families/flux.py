"""FLUX.1 and FLUX.2."""

from dataclasses import replace

from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

from workers import lora_aliases
from workers.models.family import DENOISERS, FAMILIES, Denoiser, Family

_SECOND = Family(several_pictures=True)
FAMILIES.add("FluxPipeline", Family(mag_ratios=FLUX_MAG_RATIOS))  # others need their own
FAMILIES.add("Flux2", _SECOND)
FAMILIES.add("Flux2Pipeline", replace(_SECOND, guidance="distilled"))
DENOISERS.add(
    "FluxTransformer2DModel",
    Denoiser(
        step_caches=frozenset({"first_block", "taylorseer", "mag"}),
        other_names=lora_aliases.flux,
    ),
)
