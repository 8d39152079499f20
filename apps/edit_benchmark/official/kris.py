"""KRIS-Bench: means of ratings from 1 to 5, told from 0 to 100, by dimension and kind of knowledge.

Every rating counts once in the mean of its dimension, of its kind of knowledge, and of all.
KRIS-Bench publishes how edits are rated (metrics_*.py in mercurystraw/Kris_Bench) and the figures;
the script that leads from one to the other is BAGEL's summarize.py (ByteDance-Seed/Bagel,
eval/gen/kris).
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from apps.edit_benchmark.layout import key_of
from apps.edit_benchmark.official_statistic import STATISTICS, Judged, Statistic, mean_of

DIMENSIONS = {
    "Attribute Perception": (
        "count_change", "color_change", "size_adjustment", "part_completion",
        "anomaly_correction",
    ),
    "Spatial Perception": ("viewpoint_change", "position_movement"),
    "Temporal Prediction": ("temporal_prediction",),
    "Social Science": ("humanities", "practical_knowledge"),
    "Natural Science": (
        "biology", "chemistry", "geography", "medicine", "mathematics", "physics",
    ),
    "Logical Reasoning": ("abstract_reasoning", "rule-based_reasoning"),
    "Instruction Decomposition": ("multi-element_composition", "multi-instruction_execution"),
}  # fmt: skip
KNOWLEDGE = {
    "Factual Knowledge": ("Attribute Perception", "Spatial Perception", "Temporal Prediction"),
    "Conceptual Knowledge": ("Social Science", "Natural Science"),
    "Procedural Knowledge": ("Logical Reasoning", "Instruction Decomposition"),
}
# As KRIS-Bench's own scripts call categories of the published data.
ALSO_CALLED = {
    "object_count": "count_change",
    "daily_life": "practical_knowledge",
    "rule_reasoning": "rule-based_reasoning",
}
PLAUSIBLE = ("Social Science", "Natural Science", "Logical Reasoning")  # are asked for knowledge
SHORT = {
    "consistency_score": "VC",
    "quality_score": "VQ",
    "instruction_score": "IF",
    "knowledge_score": "KP",
}


@STATISTICS.add_one("kris")
class KrisStatistic(Statistic):
    """Visual consistency, visual quality, instruction following, knowledge plausibility."""

    script = "summarize.py of BAGEL's KRIS-Bench evaluation (github.com/ByteDance-Seed/Bagel)"
    names: Mapping[str, Sequence[str]] = {
        "consistency_score": ("consistency", "visual_consistency", "VC"),
        "quality_score": ("quality", "visual_quality", "image_quality", "VQ"),
        "instruction_score": ("instruction", "instruction_following", "IF"),
        "knowledge_score": ("knowledge", "knowledge_plausibility", "KP"),
    }

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """By dimension and by category each rating's mean; by kind of knowledge and overall AVG."""
        dimensions: dict[str, Any] = {}
        categories: dict[str, Any] = {}
        flat: dict[str, list[float]] = {}
        for dimension, members in DIMENSIONS.items():
            names = [n for n in SHORT if n != "knowledge_score" or dimension in PLAUSIBLE]
            ratings: dict[str, list[float]] = defaultdict(list)
            flat[dimension] = []
            for category in members:
                mine = _ratings([o for o in judged if _category(o) == category], names)
                if mine:
                    categories[category] = _means(mine)
                for name, values in mine.items():
                    ratings[name] += values
                    flat[dimension] += values
            if flat[dimension]:
                dimensions[dimension] = {**_means(ratings), "AVG": mean_of(flat[dimension])}
        knowledge = {
            kind: mean_of([value for dimension in members for value in flat[dimension]])
            for kind, members in KNOWLEDGE.items()
        }
        return {
            "dimensions": dimensions,
            "knowledge": knowledge,
            "overall": mean_of([value for values in flat.values() for value in values]),
            "categories": categories,
        }

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """`metrics.json` for each category."""
        by_category: dict[str, dict[str, Any]] = defaultdict(dict)
        for one in judged:
            if one.scores:
                by_category[one.pair.category][key_of(one.pair)] = {
                    "instruction": one.pair.instruction,
                    "explain": str(one.pair.metadata.get("explain_en", "")),
                    **{name: _whole(one.scores[name]) for name in SHORT if name in one.scores},
                }
        return {
            PurePosixPath("results", model, category, "metrics.json"): json.dumps(
                ratings, ensure_ascii=False, indent=2
            )
            for category, ratings in by_category.items()
        }


def _category(one: Judged) -> str:
    return ALSO_CALLED.get(one.pair.category, one.pair.category)


def _ratings(judged: Sequence[Judged], names: Sequence[str]) -> dict[str, list[float]]:
    """All ratings by name, from 0 to 100."""
    found = {
        name: [(one.scores[name] - 1) * 25 for one in judged if one.scores and name in one.scores]
        for name in names
    }
    return {name: values for name, values in found.items() if values}


def _means(ratings: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    return {SHORT[name]: mean_of(ratings[name]) for name in SHORT if ratings.get(name)}


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value
