"""Emu Edit: means of the metrics of its paper (arXiv:2311.10089), for each split.

Edits are compared with their sources and with the captions that the test set has; no script of its
authors is published, nor which CLIP and DINO they took.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.edit_benchmark.metric_statistic import MetricStatistic
from apps.edit_benchmark.official_statistic import STATISTICS, Judged

SPLITS = ("test", "validation")


@STATISTICS.add_one("emu_edit")
class EmuEditStatistic(MetricStatistic):
    """CLIP of the change, of the pictures, and of the edit's caption; L1 and DINO to the source."""

    script = "none is published: the metrics of Emu Edit's paper (arXiv:2311.10089)"
    names: Mapping[str, Sequence[str]] = {
        "CLIP-dir": ("clip_dir",),
        "CLIP-im": ("clip_i_source",),
        "CLIP-out": ("clip_t_caption",),
        "L1": ("l1_source",),
        "DINO": ("dino_source",),
    }

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        parts = {s: [one for one in judged if s in one.pair.subsets] for s in SPLITS}
        parts = {split: part for split, part in parts.items() if part} or {"all": list(judged)}
        return {split: self.means(part) for split, part in parts.items()}
