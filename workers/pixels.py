"""From a model's floats to 8-bit pictures, on the device where that can be had.

diffusers copies 32-bit floats to the host and computes there: 20 ms for 1024 x 1024, in which
the device has nothing to do.
"""

from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from core.errors import MultiGPUError

NOT_A_NUMBER = "The model computed NaN instead of a picture; try dtype float32."


def quantise_on_device(pipeline: Any) -> None:
    """Have a pipeline that is asked for `output_type="np"` return 8 bits.

    One with a way of its own from tensors to pictures goes on to return floats.
    """
    processor: Any = getattr(pipeline, "image_processor", None)
    if getattr(type(processor), "postprocess", None) is not VaeImageProcessor.postprocess:
        return
    postprocess = processor.postprocess

    def to_bytes_at_once(
        image: torch.Tensor, output_type: str = "pil", *args: Any, **more: Any
    ) -> Any:
        if output_type != "np":
            return postprocess(image, output_type, *args, **more)
        return to_bytes(postprocess(image, "pt", *args, **more))

    processor.postprocess = to_bytes_at_once


def to_bytes(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """[n, channels, height, width] in 0..1 to [n, height, width, channels] of 0..255.

    Raises:
        MultiGPUError: there are NaNs, which diffusers would draw black.
    """
    if images.isnan().any():
        raise MultiGPUError(NOT_A_NUMBER)
    pixels = images.float().mul(255).round_().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_image(pixels: np.ndarray[Any, Any]) -> Image.Image:
    """[height, width, 3] of 0..255, or of floats in 0..1, which may not be finite either.

    Raises:
        MultiGPUError: the numbers are not finite; diffusers would have drawn them black.
    """
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels)
    if not np.isfinite(pixels).all():
        raise MultiGPUError(NOT_A_NUMBER)
    return Image.fromarray((pixels * 255).round().astype("uint8"))
