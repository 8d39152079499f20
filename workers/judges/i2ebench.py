"""The judge that measures edits as I2EBench does, beside all that `metrics` measures."""

from PIL import Image

from core.judges.i2ebench import REGION, RIGHT
from workers.judges.metrics import MetricsJudge
from workers.judges.padded_ssim import padded_ssim


class I2EBenchJudge(MetricsJudge):
    """Adds I2EBench's similarities of structure."""

    def of_pixels(
        self,
        edit: Image.Image,
        source: Image.Image,
        target: Image.Image | None,
        mask: Image.Image | None,
    ) -> dict[str, float]:
        found = {} if target is None else {RIGHT: padded_ssim(edit, target)}
        if mask is not None:
            found[REGION] = padded_ssim(edit, source, mask)
        return {**found, **super().of_pixels(edit, source, target, mask)}
