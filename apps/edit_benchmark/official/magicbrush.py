"""MagicBrush: means of metrics against the right result, of all turns and of final turns.

All turns are those that start from the data's own pictures; a final turn is the last of a session
whose turns follow each other. A session of one turn counts in both. Published as image_eval.py in
OSU-NLP-Group/MagicBrush, evaluation, with a CLIP ViT-B/32 and the first DINO's ViT-S/16.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from apps.edit_benchmark.data_sets.magicbrush import FINAL, MULTI, SINGLE
from apps.edit_benchmark.metric_statistic import MetricStatistic
from apps.edit_benchmark.official_statistic import STATISTICS, Judged


@STATISTICS.add_one("magicbrush")
class MagicBrushStatistic(MetricStatistic):
    """L1, L2, CLIP-I and DINO of edit and target; CLIP-T of the edit and the target's caption."""

    script = "image_eval.py of MagicBrush (github.com/OSU-NLP-Group/MagicBrush)"
    names: Mapping[str, Sequence[str]] = {
        "l1": ("l1_target",),
        "l2": ("l2_target",),
        "clip-i": ("clip_i_target",),
        "dino": ("dino_target",),
        "clip-t": ("clip_t_caption",),
    }

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """Of either setting what was run; a judge gives what its network can."""
        singles = [one for one in judged if SINGLE in one.pair.subsets]
        in_turns = [one for one in judged if MULTI in one.pair.subsets]
        alone = [one for one in singles if MULTI not in one.pair.subsets]
        # Of a session that is not run to its end, no turn is the final one.
        finals = [one for one in in_turns if FINAL in one.pair.subsets]
        following = [one for one in in_turns if SINGLE not in one.pair.subsets]
        settings = {
            "all_turn": singles if alone or not following else [],
            "final_turn": finals if following or not alone else [],
        }
        return {name: self.means(part) for name, part in settings.items() if part}
