"""SSIM as pytorch-ssim has it and as I2EBench took it over: up to the border, with zeros around.

The window is that of Wang et al. 2004 (11 x 11, a deviation of 1.5); values are from 0 to 1, each
colour has a similarity of its own, and all pixels count alike. Wang et al., and scikit-image, leave
out the pixels whose window reaches over the border.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import correlate1d  # type: ignore[import-untyped]

SIDE, DEVIATION = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
WINDOW = np.exp(-((np.arange(SIDE) - SIDE // 2) ** 2) / (2 * DEVIATION**2))
# The script's window is of single precision, and its sum not quite 1. Where a mask's 255 lies
# beside values from 0 to 1, that shows in the fifth digit.
WINDOW *= math.sqrt(1 - 6.944264896446839e-08) / WINDOW.sum()

Values = NDArray[np.float64]


def padded_ssim(
    edited: Image.Image, reference: Image.Image, mask: Image.Image | None = None
) -> float:
    """How alike two pictures are.

    Args:
        edited: brought to the reference's size where it has another one.
        mask: where it is not black, both pictures have its own value, which is 255 where it is
            white: far above theirs, so that around the mask little but the mask is compared. As
            I2EBench has it.
    """
    if edited.size != reference.size:
        edited = edited.resize(reference.size, Image.Resampling.BICUBIC)
    a, b = (np.asarray(image.convert("RGB")) / 255.0 for image in (edited, reference))
    if mask is not None:
        fitted = mask.convert("L").resize(reference.size, Image.Resampling.NEAREST)
        values = np.asarray(fitted, np.float64)[:, :, None]
        a, b = (np.where(values > 0, values, picture) for picture in (a, b))
    mean_a, mean_b = _blurred(a), _blurred(b)
    squares, product = (mean_a**2, mean_b**2), mean_a * mean_b
    of_squares = _blurred(a * a) - squares[0], _blurred(b * b) - squares[1]
    of_product = _blurred(a * b) - product
    alike = (2 * product + C1) * (2 * of_product + C2)
    most = (squares[0] + squares[1] + C1) * (of_squares[0] + of_squares[1] + C2)
    return float((alike / most).mean())


def _blurred(values: Values) -> Values:
    for axis in (0, 1):
        values = correlate1d(values, WINDOW, axis=axis, mode="constant")
    return values
