"""Which editing pipelines of diffusers take a mask: those with a sister class for it."""

from collections.abc import Mapping
from types import MappingProxyType

MASKED: Mapping[str, str] = MappingProxyType(
    {  # class of a pipeline: its sister, made of the same parts
        "FluxKontextPipeline": "FluxKontextInpaintPipeline",
        "Flux2KleinPipeline": "Flux2KleinInpaintPipeline",
        "QwenImageEditPipeline": "QwenImageEditInpaintPipeline",
    }
)


def no_mask(model: str) -> str:
    """Why an edit with a mask is refused.

    Args:
        model: its name, or that of its pipeline.
    """
    return f"The model '{model}' takes no mask: say in the prompt what is to change, and where."
