"""A chat model whose next token's probabilities are the score."""

from core.judge_type import JUDGES, JudgeType

JUDGES.add(
    "vlm_logits",
    JudgeType(
        served_by="workers.judges.vlm_logits:VlmLogitsJudge",
        usual_prompts="viescore_logits.yaml",
        needs=("prefix", "tokens"),
        own_settings=frozenset({"minimum_mass"}),
        new_tokens=1,
    ),
)
