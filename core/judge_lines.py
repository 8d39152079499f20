"""Reads scores that stand in plain lines, as official prompts of some benchmarks ask for them.

`lines` is ImgEdit's form: one `name: number` per line, as many as there are parts, in their order.
`final_score` is RISEBench's: the words "Final Score", then one number per part. As in JSON, only
what follows the judge's thought counts, and what contradicts itself is no score. `words` are no
score at all, but what a later question is about.
"""

import re
from collections.abc import Callable, Iterable

from core.judge_answer import Form, Reading
from core.judge_thought import NoScore, after_thought
from core.validation import shown

_LINE = re.compile(r"^[^\n:：]+[:：]\s*\**\s*(\d+(?:\.\d+)?)\s*\**\s*(?:/\s*\d+)?\s*\.?\s*$", re.M)
_FINAL = re.compile(
    r"final\s+scores?\W{0,8}?[*\s:：]+((?:\d++(?:\.\d++)?)(?:[*\s]*,[*\s]*\d+(?:\.\d+)?)*+)"
    r"(?!\.?\d|\s*[-–]\s*\d)",  # part of a longer number, or a range that is only repeated
    re.IGNORECASE,
)

Finder = Callable[[str], Iterable[tuple[str, ...]]]
"""All groups of scores in a text."""


def read_lines(raw: str, form: Form, cut: bool = False) -> Reading:
    """The scores in lines that end with a number.

    Args:
        cut: the judge had more to say when it reached its limit of tokens.
    """
    return _read(raw, form, cut, lambda text: [tuple(_LINE.findall(text))])


def read_final_score(raw: str, form: Form, cut: bool = False) -> Reading:
    """The scores behind the words "Final Score".

    Args:
        cut: as in `read_lines`.
    """
    return _read(
        raw, form, cut, lambda text: [tuple(re.split(r"[*\s,]+", m)) for m in _FINAL.findall(text)]
    )


def read_words(raw: str, form: Form, cut: bool = False) -> Reading:
    """The whole answer, which has no parts; where it was cut, what there is of it.

    Args:
        form: decides nothing.
    """
    del form, cut
    try:
        after_thought(raw)
    except NoScore as reason:
        return Reading(None, str(reason))
    return Reading({})


def _read(raw: str, form: Form, cut: bool, find: Finder) -> Reading:
    try:
        text = after_thought(raw)
        if cut:
            raise NoScore("the answer has no end")
        found = set(find(text))
        if len(found) > 1:
            raise NoScore("the answer gives several different scores")
        scores = [_number(word, form) for word in (found.pop() if found else ())]
        if len(scores) != len(form.parts):
            raise NoScore(f"{len(scores)} scores were found for {', '.join(form.parts)}")
    except NoScore as reason:
        return Reading(None, str(reason))
    return Reading(dict(zip(form.parts, scores, strict=True)))


def _number(word: str, form: Form) -> float:
    value = float(word)
    if not form.lowest <= value <= form.highest:
        raise NoScore(f"{shown(value)} is outside {form.lowest:g} to {form.highest:g}")
    return value
