"""How a judge that answers in words is asked until its answer can be read.

An answer that cannot be read is asked for once more: if it was cut, by the same question with twice
as many tokens, so that it goes on; else with a reminder of its form. `ScoreTask.more_asks` goes on
like this. As a greedy judge would say the same each time, answers after the reminded one are
drawn, from the task's seed. All asks are gone through each time, so that a question that was
answered before keeps its score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core.judge_calls import WORDS, JudgeCall
from core.judge_thought import after_thought
from core.messages import Lease
from core.settings import JudgeSettings
from core.tasks import ScoreTask

REMINDERS = {
    "lines": "\nEnd with the lines that were asked for, each with its number, and nothing else.",
    "final_score": "\nEnd with the words Final Score: and what was asked for.",
    WORDS: "\nAnswer in a few words.",
}
REMINDER = "\nAnswer with one JSON object and nothing else."
USUAL_ANSWER = 512  # tokens at most
USUAL_ASKS = 2
DRAWN_AT = 0.7  # temperature of further asks of a greedy judge


class Words(str):
    """What a judge said."""

    cut = False  # it had more to say when it reached its limit of tokens


class Ask(JudgeCall):
    """A call as it is asked once.

    Attributes:
        limit: tokens of the answer at most.
        temperature: 0 is greedy; None is whatever the server takes.
        draw: which draw from the task's seed.
    """

    limit: int
    temperature: float | None
    draw: int = 0


@dataclass
class Asked:
    """One call about one edit: what was said so far, and what it is worth."""

    asks_left: int
    limit: int  # tokens of the next answer
    manner: int = 0  # of the next ask: 0 plain, 1 with a reminder, from 2 on drawn, too
    raws: list[str] = field(default_factory=list)
    parts: dict[str, float] | None = None
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, lease: Lease, settings: JudgeSettings) -> "Asked":
        """A call that was not asked yet."""
        assert isinstance(lease.task, ScoreTask)
        return cls(USUAL_ASKS + lease.task.more_asks, settings.max_new_tokens or USUAL_ANSWER)

    @property
    def problem(self) -> str | None:
        """The reason why each ask gave no score."""
        return None if self.parts is not None else ", then ".join(dict.fromkeys(self.problems))

    def hear(self, words: str, call: JudgeCall) -> None:
        cut = getattr(words, "cut", False)
        reading = call.read(words, cut)
        self.asks_left -= 1
        self.raws.append(words)
        self.parts = reading.parts
        if reading.problem is None:
            self.asks_left = 0
        elif cut:
            self.problems.append(f"cut at max_new_tokens={self.limit}: {reading.problem}")
            self.limit *= 2
        else:
            self.problems.append(reading.problem)
            self.manner += 1

    def answer(self, call: JudgeCall) -> dict[str, Any]:
        """The call's answer as a verdict records it."""
        return {
            "name": call.name,
            "value": call.value_of(self.parts) if self.parts else None,
            "parts": self.parts,
            "problem": self.problem,
            "raw": self.raws,
        }


def heard(lease: Lease, call: JudgeCall, answer: Mapping[str, Any]) -> Lease:
    """A lease whose task has what a judge said beside the row's fields, for later questions."""
    if call.answer != WORDS:
        return lease
    assert isinstance(lease.task, ScoreTask)
    said = "" if answer["problem"] else after_thought(answer["raw"][-1]).strip()
    fields = {**lease.task.fields, call.name: said}
    return replace(lease, task=replace(lease.task, fields=fields))


def ask_of(call: JudgeCall, manner: int, limit: int, temperature: float | None) -> Ask:
    """A call as it is asked in a manner; see `Asked.manner`."""
    draw = 0
    if manner > 1:
        temperature, draw = temperature or DRAWN_AT, manner
    text = call.text + REMINDERS.get(call.answer, REMINDER) if manner else call.text
    changed = {"text": text, "limit": limit, "temperature": temperature, "draw": draw}
    return Ask(**{**dict(call), **changed})
