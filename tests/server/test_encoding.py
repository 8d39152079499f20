"""Pictures in the formats in which they are sent."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.openai_images.encoding import encoded
from apps.openai_images.parameters import Format


@pytest.mark.parametrize("format", ["jpeg", "webp"])
@pytest.mark.parametrize("compression", [75, 100])
def test_a_picture_of_nothing_but_noise_is_sent_like_any_other(
    tmp_path: Path, format: Format, compression: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    content = encoded(tmp_path / "noise.png", format, compression)
    with Image.open(BytesIO(content)) as image:
        assert (image.format, image.size) == (format.upper(), (256, 256))
