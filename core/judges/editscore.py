"""EditScore: a chat model with a LoRA that was trained to score edits from 0 to 25."""

from core.judge_type import JUDGES, JudgeType

JUDGES.add(
    "editscore",
    JudgeType(
        served_by="workers.judges.vlm:VlmJudge",
        usual_prompts="editscore.yaml",
        varies=True,
        named_by=("model", "lora"),
    ),
)
