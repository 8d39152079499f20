"""A chat model that somebody serves: vLLM, SGLang, or a provider with OpenAI's API."""

from core.judge_type import JUDGES, JudgeType

JUDGES.add(
    "openai",
    JudgeType(
        served_by="workers.judges.openai:OpenAIJudge",
        varies=True,
        usual_temperature=None,
        loads=False,
    ),
)
