"""The judge that answers in words, which are asked for as `workers.judges.asking` says."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from core.judge_calls import JudgeCall
from core.messages import Lease
from workers.judges.asking import USUAL_ANSWER, Ask, Asked, Words, ask_of
from workers.judges.chat_model import ChatModel
from workers.judges.pictures import Pictures

__all__ = ["Ask", "Pictures", "VlmJudge", "Words"]


class VlmJudge(ChatModel):
    """Asks each call of the prompt file; what cannot be read in the end is no score."""

    def answers(
        self, call: JudgeCall, leases: Sequence[Lease], pictures: Sequence[Pictures]
    ) -> list[dict[str, Any]]:
        settings = self.judge.settings
        asked = [Asked.of(lease, settings) for lease in leases]
        while waiting := [i for i, a in enumerate(asked) if a.asks_left]:
            # How an edit is asked about depends on its own answers, whatever was cut beside it.
            for manner, limit in sorted({(asked[i].manner, asked[i].limit) for i in waiting}):
                chosen = [
                    i for i in waiting if (asked[i].manner, asked[i].limit) == (manner, limit)
                ]
                shown = [leases[i] for i in chosen], [pictures[i] for i in chosen]
                words = self._ask(ask_of(call, manner, limit, settings.temperature), *shown)
                for i, said in zip(chosen, words, strict=True):
                    asked[i].hear(said, call)
        return [one.answer(call) for one in asked]

    def first_ask(self, call: JudgeCall) -> Ask:
        """A call as it is asked at first."""
        settings = self.judge.settings
        return ask_of(call, 0, settings.max_new_tokens or USUAL_ANSWER, settings.temperature)

    def _ask(self, ask: Ask, leases: Sequence[Lease], pictures: Sequence[Pictures]) -> list[str]:
        if not ask.temperature or len(leases) == 1:
            return self._generate(ask, leases, pictures)
        # Drawn one by one, so that neighbours in a group take no part in the draw.
        pairs = zip(leases, pictures, strict=True)
        return [self._generate(ask, [lease], [seen])[0] for lease, seen in pairs]

    def _generate(
        self, ask: Ask, leases: Sequence[Lease], pictures: Sequence[Pictures]
    ) -> list[str]:
        inputs = self.inputs(ask, leases, pictures)
        if ask.temperature:
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
        sampling: dict[str, Any] = {}
        if ask.temperature:
            settings = self.judge.settings
            sampling = {"temperature": ask.temperature, "top_k": settings.top_k or 0}
            sampling["top_p"] = 1.0 if settings.top_p is None else settings.top_p
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
