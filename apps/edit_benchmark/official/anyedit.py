"""AnyBench: means of metrics against the right result, for each type of edit.

Published as anybench_gen_eval.py in weichow23/AnySD, anybench/eval, with a CLIP ViT-B/32 and the
first DINO's ViT-S/16. It leaves out edits that are black all over, brings the target to the size of
the edit for L1 where here the edit is brought to that of the target, and has no mean over types.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.edit_benchmark.metric_statistic import MetricStatistic
from apps.edit_benchmark.official_statistic import STATISTICS, Judged, by_category


@STATISTICS.add_one("anyedit")
class AnyBenchStatistic(MetricStatistic):
    """CLIP-I, DINO and L1 of edit and target, and CLIP-T of the target's caption and the edit."""

    script = "anybench_gen_eval.py of AnyBench (github.com/weichow23/AnySD)"
    names: Mapping[str, Sequence[str]] = {
        "CLIP-I": ("clip_i_target",),
        "CLIP-T": ("clip_t_caption",),
        "DINO": ("dino_target",),
        "L1": ("l1_target",),
    }

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        parts = by_category(judged)
        return {"types": {kind: self.means(part) for kind, part in parts.items()}}
