"""What I2EBench measures of edits without asking a judge, beside what `metrics` measures.

That is a similarity of structure with the right result, the same with the source outside of the
mask, both as its low_level_eval.py computes them, and a CLIP's similarity of the edit and the name
of its style, which is the row's caption.
"""

from core.judge_calls import JudgeCall
from core.judge_type import JUDGES, JudgeType
from core.judges.metrics import METRICS

RIGHT, REGION = "ssim_padded_target", "ssim_padded_outside"
"""Similarity with the right result, and with the source outside of the mask."""
NEEDED = {RIGHT: "target", REGION: "mask"}

I2EBENCH = METRICS.model_copy(
    update={
        "name": "i2ebench",
        "calls": [
            *(
                JudgeCall(name=name, sees=["edited"], text="-", where={needed: True})
                for name, needed in NEEDED.items()
            ),
            *METRICS.calls,
        ],
    }
)

JUDGES.add(
    "i2ebench",
    JudgeType(
        served_by="workers.judges.i2ebench:I2EBenchJudge",
        chats=False,
        prompts=I2EBENCH,
        networks="a CLIP, such as openai/clip-vit-base-patch32",
        packages={"skimage": "scikit-image"},
    ),
)
