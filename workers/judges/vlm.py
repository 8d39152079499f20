"""The judge that answers in words: JSON, read by `core.judge_answer`.

An answer that cannot be read is asked for once more: if it was cut, by the same question with twice
as many tokens, so that it goes on; else with a reminder of its form. `ScoreTask.more_asks` goes on
like this. As a greedy judge would say the same each time, answers after the reminded one are
drawn, from the task's seed. All asks are gone through each time, so that a question that was
answered before keeps its score.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from core.judge_answer import read_answer
from core.judge_calls import JudgeCall
from core.messages import Lease
from core.tasks import ScoreTask
from workers.judges.chat_model import ChatModel

REMINDER = "\nAnswer with one JSON object and nothing else."
USUAL_ANSWER = 512  # tokens at most
USUAL_ASKS = 2
DRAWN_AT = 0.7  # temperature of further asks of a greedy judge
Pictures = dict[str, list[Image.Image]]


class Words(str):
    """What a judge said."""

    cut = False  # it had more to say when it reached its limit of tokens


class Ask(JudgeCall):
    """A call as it is asked once.

    Attributes:
        limit: tokens of the answer at most.
        temperature: 0 is greedy.
        draw: which draw from the task's seed.
    """

    limit: int
    temperature: float
    draw: int = 0


@dataclass
class _Asked:
    """One call about one edit: what was said so far, and what it is worth."""

    asks_left: int
    limit: int  # tokens of the next answer
    manner: int = 0  # of the next ask: 0 plain, 1 with a reminder, from 2 on drawn, too
    raws: list[str] = field(default_factory=list)
    parts: dict[str, float] | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str | None:
        """The reason why each ask gave no score."""
        return None if self.parts is not None else ", then ".join(dict.fromkeys(self.problems))

    def hear(self, words: str, call: JudgeCall) -> None:
        cut = getattr(words, "cut", False)
        reading = read_answer(words, call.form, cut)
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


class VlmJudge(ChatModel):
    """Asks each call of the prompt file; what cannot be read in the end is no score."""

    def answers(
        self, call: JudgeCall, leases: Sequence[Lease], pictures: Sequence[Pictures]
    ) -> list[dict[str, Any]]:
        limit = self.first_ask(call).limit
        asked = [_Asked(USUAL_ASKS + _more_asks(lease), limit) for lease in leases]
        while waiting := [i for i, a in enumerate(asked) if a.asks_left]:
            # How an edit is asked about depends on its own answers, whatever was cut beside it.
            for manner, limit in sorted({(asked[i].manner, asked[i].limit) for i in waiting}):
                chosen = [
                    i for i in waiting if (asked[i].manner, asked[i].limit) == (manner, limit)
                ]
                shown = [leases[i] for i in chosen], [pictures[i] for i in chosen]
                words = self._ask(self._ask_of(call, manner, limit), *shown)
                for i, said in zip(chosen, words, strict=True):
                    asked[i].hear(said, call)
        return [
            {
                "name": call.name,
                "value": min(a.parts.values()) if a.parts is not None else None,
                "parts": a.parts,
                "problem": a.problem,
                "raw": a.raws,
            }
            for a in asked
        ]

    def first_ask(self, call: JudgeCall) -> Ask:
        """A call as it is asked at first."""
        return self._ask_of(call, 0, self.judge.settings.max_new_tokens or USUAL_ANSWER)

    def _ask_of(self, call: JudgeCall, manner: int, limit: int) -> Ask:
        temperature, draw = self.judge.settings.temperature, 0
        if manner > 1:
            temperature, draw = temperature or DRAWN_AT, manner
        text = call.text + REMINDER if manner else call.text
        changed = {"text": text, "limit": limit, "temperature": temperature, "draw": draw}
        return Ask(**{**dict(call), **changed})

    def _ask(self, ask: Ask, leases: Sequence[Lease], pictures: Sequence[Pictures]) -> list[str]:
        if ask.temperature == 0 or len(leases) == 1:
            return self._generate(ask, leases, pictures)
        # Drawn one by one, so that neighbours in a group take no part in the draw.
        pairs = zip(leases, pictures, strict=True)
        return [self._generate(ask, [lease], [seen])[0] for lease, seen in pairs]

    def _generate(
        self, ask: Ask, leases: Sequence[Lease], pictures: Sequence[Pictures]
    ) -> list[str]:
        inputs = self.inputs(ask, leases, pictures)
        if ask.temperature > 0:
            torch.manual_seed((leases[0].task.seed or 0) + ask.draw)
        generation = self._generation(ask)
        tokens = self.model.generate(**inputs, generation_config=generation)
        ends = generation.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        start = inputs["input_ids"].shape[1]
        return [self._words(row[start:].tolist(), ends) for row in tokens]

    def _words(self, tokens: list[int], ends: list[int | None]) -> Words:
        """One answer up to its end.

        Special tokens stay in: some models mark the end of their thoughts with one.
        """
        end = next((i for i, token in enumerate(tokens) if token in ends), None)
        words = Words(self.opened + self.processor.tokenizer.decode(tokens[:end]))
        words.cut = end is None
        return words

    def _generation(self, ask: Ask) -> GenerationConfig:
        """Generation settings: the model's own would sample. What is not set is taken from them."""
        sampling = {"temperature": ask.temperature, "top_k": 0, "top_p": 1.0}
        if ask.temperature == 0:
            sampling = {}
        return GenerationConfig(
            max_new_tokens=ask.limit,
            do_sample=bool(sampling),
            eos_token_id=self.model.generation_config.eos_token_id,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            # A penalty would push down the question's own words, digits and braces included.
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            **sampling,
        )


def _more_asks(lease: Lease) -> int:
    assert isinstance(lease.task, ScoreTask)
    return lease.task.more_asks
