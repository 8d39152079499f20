"""Metrics without a question: similarities of embeddings, and differences of pixels.

The model is a CLIP or SigLIP (CLIP-I, CLIP-T) or a DINO; which of the names a run has depends on
it, and on whether the pairs have targets, masks and captions.
"""

from core.judge_calls import JudgeCall
from core.judge_protocol import JudgePrompts
from core.judge_type import JUDGES, JudgeType

PIXELS = ("l1", "l2", "psnr", "ssim")
NAMES = (
    *(f"{name}_{end}" for end in ("source", "outside", "target") for name in PIXELS),
    *("clip_t", "clip_t_caption", "clip_dir"),
    *(f"{name}_{end}" for end in ("source", "target") for name in ("clip_i", "dino")),
)
BEFORE, AFTER = "input_caption", "output_caption"
"""Row fields with captions of the source and of a right result, as Emu Edit's test set has them."""
# What a name ends in, with what a pair has to have for it.
NEEDED = {
    "target": ("target",),
    "outside": ("mask",),
    "caption": (AFTER,),
    "dir": (BEFORE, AFTER),
}

METRICS = JudgePrompts(
    name="similarity",
    fields=(BEFORE, AFTER),
    calls=[
        JudgeCall(
            name=name,
            sees=["edited"],
            text="-",
            where=dict.fromkeys(NEEDED.get(name.rpartition("_")[2], ()), True),
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
