"""A model's floats become the 8 bits that diffusers itself would have made of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from core.errors import MultiGPUError


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_bytes_are_those_of_diffusers(dtype: str) -> None:
    import torch
    from diffusers.image_processor import VaeImageProcessor

    from workers.pixels import quantise_on_device, to_image

    halves = (torch.arange(-256, 257) / 256).repeat(3).reshape(1, 3, 27, 19)  # ties among them
    images = torch.cat([halves, torch.randn(3, 3, 27, 19)]).to(getattr(torch, dtype))
    expected = VaeImageProcessor().postprocess(images, "pil")
    pipeline = SimpleNamespace(image_processor=VaeImageProcessor())
    quantise_on_device(pipeline)
    found = pipeline.image_processor.postprocess(images, "np")
    assert found.dtype == np.uint8
    for pixels, picture in zip(found, expected, strict=True):
        assert np.array_equal(np.asarray(to_image(pixels)), np.asarray(picture))


def test_numbers_that_are_none_make_no_picture() -> None:
    import torch

    from workers.pixels import to_bytes, to_image

    for bad in ("nan", "inf"):
        [pixels] = to_bytes(torch.full((1, 3, 2, 2), float(bad)))
        with pytest.raises(MultiGPUError, match="NaN instead of a picture"):
            to_image(pixels)


def test_a_pipeline_with_a_way_of_its_own_goes_on_to_return_floats() -> None:
    import torch
    from diffusers.image_processor import VaeImageProcessor

    from workers.pixels import quantise_on_device, to_image

    own_way = type(
        "OwnWay", (VaeImageProcessor,), {"postprocess": lambda self, x, _: self.pt_to_numpy(x)}
    )
    pipeline = SimpleNamespace(image_processor=own_way())
    quantise_on_device(pipeline)
    [pixels] = pipeline.image_processor.postprocess(torch.full((1, 3, 2, 2), 0.5), "np")
    assert pixels.dtype == np.float32
    assert np.asarray(to_image(pixels)).min() == 128
    quantise_on_device(SimpleNamespace())  # some have no such processor
