"""Which pixels of a picture an edit may not change, by the mask of its pair."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURLESS, OF_PIXELS = 8, 0.99  # a grey picture: so little colour in so many of its pixels
LIGHT, WHITE = 128, 250  # from these values on a mask is white: a grey one, and one in a photo


def outside_of(mask: Image.Image, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a picture that an edit may not change: where its mask is not white."""
    values = np.asarray(mask.convert("RGB").resize(size, Image.Resampling.NEAREST), np.int16)
    grey = (values.max(2) - values.min(2) <= COLOURLESS).mean() >= OF_PIXELS
    white: NDArray[np.bool_] = values.min(2) >= (LIGHT if grey else WHITE)
    return ~white
