"""Turns a model's floats into 8-bit pictures, on the device where that can be had.

diffusers copies 32-bit floats to the host and computes there: 20 ms for 1024 x 1024, in which
the device has nothing to do.
"""

from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from core.errors import MultiGPUError


def quantise_on_device(pipeline: Any) -> None:
    """Make a pipeline that is asked for `output_type="np"` return 8 bits.

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
    """Turn [n, channels, height, width] in 0..1 into [n, height, width, channels] of 0..255.

    Floats as they are where some are not finite: to refuse them here, in the middle of the
    pipeline, would leave that as it never is otherwise.
    """
    images = images.float()
    if images.isfinite().all():
        images = images.mul(255).round_().to(torch.uint8)
    return images.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_image(pixels: np.ndarray[Any, Any]) -> Image.Image:
    """Make a picture of [height, width, 3] in 0..255, or of floats in 0..1.

    Raises:
        MultiGPUError: the numbers are not finite; diffusers would have drawn them black.
    """
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels)
    if not np.isfinite(pixels).all():
        raise MultiGPUError("The model computed NaN instead of a picture; try dtype float32.")
    return Image.fromarray((pixels * 255).round().astype("uint8"))
