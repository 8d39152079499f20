"""LPIPS (arXiv:1801.03924): how unlike two pictures look to a network; 0 is the same."""

from core.judge_calls import JudgeCall
from core.judge_protocol import JudgePrompts
from core.judge_type import JUDGES, JudgeType

LPIPS = JudgePrompts(
    name="features",
    calls=[
        JudgeCall(name="lpips_source", sees=["edited"], text="-"),
        JudgeCall(name="lpips_outside", sees=["edited"], text="-", where={"mask": True}),
        JudgeCall(name="lpips_target", sees=["edited"], text="-", where={"target": True}),
    ],
    overall=(),
)

JUDGES.add(
    "lpips",
    JudgeType(
        served_by="workers.judges.lpips:LpipsJudge",
        chats=False,
        prompts=LPIPS,
        networks="a VGG16 or AlexNet, such as timm/vgg16.tv_in1k",
        packages={"torchmetrics": "torchmetrics"},
    ),
)
