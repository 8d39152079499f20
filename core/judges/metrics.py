"""Metrics without a question: similarities of embeddings, and differences of pixels.

The model is a CLIP or SigLIP (CLIP-I, CLIP-T) or a DINO; which of the names a run has depends on
it, and on whether the pairs have targets and masks.
"""

from core.judge_calls import JudgeCall
from core.judge_protocol import JudgePrompts
from core.judge_type import JUDGES, JudgeType

PIXELS = ("l1", "l2", "psnr", "ssim")
NAMES = (
    *(f"{name}_{end}" for end in ("source", "outside", "target") for name in PIXELS),
    "clip_t",
    *(f"{name}_{end}" for end in ("source", "target") for name in ("clip_i", "dino")),
)
# What a name ends in, with the picture that a pair has to have for it.
NEEDED = {"target": "target", "outside": "mask"}

METRICS = JudgePrompts(
    name="similarity",
    calls=[
        JudgeCall(
            name=name,
            sees=["edited"],
            text="-",
            where={needed: True} if (needed := NEEDED.get(name.rpartition("_")[2])) else {},
        )
        for name in NAMES
    ],
    overall=(),
)

JUDGES.add(
    "metrics",
    JudgeType(
        served_by="workers.judges.metrics:MetricsJudge",
        chats=False,
        prompts=METRICS,
        networks="a CLIP, SigLIP or DINO, such as openai/clip-vit-large-patch14 or "
        "facebook/dinov2-base",
        packages={"skimage": "scikit-image"},
    ),
)
