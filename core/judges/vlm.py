"""A chat model that answers in words: JSON, read by `core.judge_answer`."""

from core.judge_type import JUDGES, JudgeType

JUDGES.add("vlm", JudgeType(served_by="workers.judges.vlm:VlmJudge", varies=True))
