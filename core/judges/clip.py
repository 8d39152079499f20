"""A CLIP or SigLIP, whose similarities of embeddings are the scores."""

from core.judge_calls import JudgeCall
from core.judge_protocol import JudgePrompts
from core.judge_type import JUDGES, JudgeType

CLIP_PROMPTS = JudgePrompts(
    name="similarity",
    calls=[JudgeCall(name=n, sees=["edited"], text="-") for n in ("text_image", "image_image")],
    overall=(),
)

JUDGES.add(
    "clip",
    JudgeType(
        served_by="workers.judges.clip:ClipJudge",
        chats=False,
        prompts=CLIP_PROMPTS,
        networks="a CLIP or SigLIP, such as openai/clip-vit-large-patch14",
    ),
)
