"""A reward model: a chat model with heads that give a number, as EditReward has them."""

from core.judge_type import JUDGES, JudgeType

JUDGES.add(
    "reward",
    JudgeType(
        served_by="workers.judges.reward:RewardJudge",
        usual_prompts="reward.yaml",
        new_tokens=1,
        named_by=("model",),
        from_zero=False,
    ),
)
