"""OmniContext: means over each type of task, then over the types, for each language.

An edit's overall score is the root of the product of its two ratings. Published as
calculate_statistics.py in VectorSpaceLab/OmniGen2, omnicontext.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from apps.edit_benchmark.layout import key_of
from apps.edit_benchmark.official_statistic import (
    STATISTICS,
    Judged,
    Statistic,
    by_category,
    by_language,
)

PROMPT, SUBJECT = "PF_score", "SC_score"  # as the script's rows have them
BACKBONE = "gpt4dot1"  # the folder that the script reads; ours was another judge
LINE = ("prompt_following", "subject_consistency", "overall")


@STATISTICS.add_one("omnicontext")
class OmniContextStatistic(Statistic):
    """Prompt following and subject consistency from 0 to 10, and the root of their product."""

    script = "calculate_statistics.py of OmniContext (github.com/VectorSpaceLab/OmniGen2)"
    names: Mapping[str, Sequence[str]] = {
        PROMPT: ("prompt_following",),
        SUBJECT: ("subject_consistency",),
    }

    def table(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """By language: each type's line, and their average."""
        return {language: _part(part) for language, part in by_language(judged).items()}

    def score_files(
        self, model: str, judged: Sequence[Judged]
    ) -> Mapping[PurePosixPath, str | bytes]:
        """`score.jsonl` for each type of task."""
        lines: dict[str, str] = defaultdict(str)
        for one in judged:
            if _is_rated(one):
                lines[one.pair.category] += json.dumps(_row(one), ensure_ascii=False) + "\n"
        folder = PurePosixPath(model, BACKBONE)
        return {folder / kind / "score.jsonl": text for kind, text in lines.items()}


def _is_rated(one: Judged) -> bool:
    return one.scores is not None and {PROMPT, SUBJECT} <= one.scores.keys()


def _part(judged: Sequence[Judged]) -> dict[str, Any]:
    types = {kind: _line(part) for kind, part in by_category(judged).items()}
    lines = [line for line in types.values() if line is not None]
    # As numpy adds, which decides the last digit.
    average = {name: float(np.mean([line[name] for line in lines])) for name in LINE}
    return {"types": types, "average": average if lines else None, "types_scored": len(lines)}


def _line(judged: Sequence[Judged]) -> dict[str, float] | None:
    ratings = [(s[PROMPT], s[SUBJECT]) for one in judged if _is_rated(one) and (s := one.scores)]
    if not ratings:
        return None
    columns = [(prompt, subject, math.sqrt(prompt * subject)) for prompt, subject in ratings]
    means = (float(np.mean(column)) for column in zip(*columns, strict=True))
    return dict(zip(LINE, means, strict=True))


def _row(one: Judged) -> dict[str, Any]:
    """A line as test_omnicontext_score.py writes it; the judge's words stand in the verdicts."""
    assert one.scores is not None
    return {
        "key": key_of(one.pair),
        "task_type": one.pair.category,
        "instruction": one.pair.instruction,
        "instruction_language": one.pair.language,
        "output_image_path": one.edited_image,
        PROMPT: one.scores[PROMPT],
        f"{PROMPT}_reason": "",
        SUBJECT: one.scores[SUBJECT],
        f"{SUBJECT}_reason": "",
    }
