"""How far two pictures differ, pixel by pixel: L1, L2, PSNR and SSIM, by scikit-image.

L1 and L2 are the mean absolute and the mean squared difference of values from 0 to 1, as
MagicBrush's evaluation has them. PSNR and SSIM are of 8-bit values; SSIM is that of Wang et al.
2004: an 11 x 11 Gaussian window with a deviation of 1.5, over the three colours.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from workers.judges.masks import outside_of

IDENTICAL = 100.0  # dB: the PSNR of two pictures without any difference would be infinite
WINDOW = 11  # pixels, the side of SSIM's window


def pixel_metrics(
    edited: Image.Image, reference: Image.Image, mask: Image.Image | None = None
) -> dict[str, float]:
    """L1, L2, PSNR (dB) and SSIM by the names l1, l2, psnr and ssim.

    Args:
        edited: brought to the reference's size where it has another one, as MagicBrush does.
        mask: white where differences do not count, a grey picture or the reference with a white
            area, as MagicBrush has it; brought to the same size. Where it is white all over there
            is nothing to compare, and no metric.
    """
    if edited.size != reference.size:
        edited = edited.resize(reference.size, Image.Resampling.BICUBIC)
    a, b = (np.asarray(image.convert("RGB")) for image in (edited, reference))
    counts = np.ones(a.shape[:2], bool) if mask is None else outside_of(mask, reference.size)
    if not counts.any():
        return {}
    x, y = a[counts], b[counts]
    found = {
        "l1": float(np.abs(x / 255.0 - y / 255.0).mean()),
        "l2": float(mean_squared_error(x / 255.0, y / 255.0)),
        "psnr": _psnr(x, y),
    }
    if min(a.shape[:2]) >= WINDOW:
        found["ssim"] = _ssim(a, b, counts if mask is not None else None)
    return found


def _psnr(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    if np.array_equal(x, y):
        return IDENTICAL
    return min(IDENTICAL, float(peak_signal_noise_ratio(x, y, data_range=255)))


def _ssim(a: NDArray[np.uint8], b: NDArray[np.uint8], counts: NDArray[np.bool_] | None) -> float:
    """The mean of the map of similarities; of a part of the picture that of its pixels."""
    mean, similarity = structural_similarity(
        a, b, channel_axis=2, data_range=255, full=True, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    return float(mean if counts is None else similarity[counts].mean())
