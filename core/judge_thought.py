"""Tells a judge's answer from the thought before it.

Only what follows the last end of a thought (`</think>` and its kin) counts, and of a single
`<answer>` only its inside. A thought that has no end leaves no answer.
"""

import re

# How models mark their thoughts: Qwen, GLM, InternVL, MiMo, Cosmos (<think>), Seed (<seed:think>),
# Magistral ([THINK]), Kimi-VL (◁think▷), Gemma 4 (<|channel>thought … <channel|>), gpt-oss,
# LongCat (<longcat_think>), MedGemma (<unused94>thought … <unused95>), Cohere, OpenThinker.
_NAME = r"(?:\w+[:_])?(?:think|thinking|thought|thoughts|reason|reasoning|scratchpad)"
_OPENED = (
    rf"<{_NAME}>|\[THINK\]|◁think▷|<\|channel>(?:thought)?|<\|channel\|>analysis"
    r"|<unused94>(?:thought)?|<\|(?:start_thinking|begin_of_thought)\|>"
)
_CLOSED = (
    rf"</{_NAME}>|\[/THINK\]|◁/think▷|<channel\|>|<\|channel\|>final"
    r"|<unused95>|<\|(?:end_thinking|end_of_thought)\|>"
)
_OPENING = re.compile(_OPENED, re.IGNORECASE)
_CLOSING = re.compile(_CLOSED, re.IGNORECASE)
_LEFT_OPEN = re.compile(rf"(?:{_OPENED})\s*\Z", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_END = re.compile(r"</answer>", re.IGNORECASE)
_ENDS = {  # of marks that a slash does not end
    "<|channel": "<channel|>",
    "<unused94>": "<unused95>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
}


class NoScore(Exception):
    """Why an answer gives no score."""


def left_open(prompt: str) -> str:
    """The mark with which a prompt opens a thought that the answer goes on with; mostly empty."""
    found = _LEFT_OPEN.search(prompt)
    return found.group().strip() if found else ""


def closing(mark: str) -> str:
    """What ends the thought that `mark` opened."""
    for start, end in _ENDS.items():
        if mark.startswith(start):
            return end
    return f"{mark[0]}/{mark[1:]}"


def after_thought(raw: str) -> str:
    ends = [end.end() for end in _CLOSING.finditer(raw)]
    text = raw[ends[-1] :] if ends else raw
    if _OPENING.search(text):
        raise NoScore("the judge's thought has no end, and no answer follows it")
    if not text.strip():
        raise NoScore("the answer is empty")
    answers = list(_ANSWER.finditer(text))
    if len(answers) == 1:
        text = _ANSWER_END.split(text[answers[0].end() :])[0]
    return text
