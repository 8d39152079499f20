"""The judge that answers in words: JSON, parsed strictly, with one retry."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from core.judge import JudgeCall, parse_answer
from core.messages import Lease
from workers.judges.chat_model import ChatModel

REMINDER = "\nAnswer with one JSON object and nothing else."
USUAL_ANSWER = 512  # tokens at most
Pictures = dict[str, list[Image.Image]]


class VlmJudge(ChatModel):
    """Asks each call of the prompt file; an answer out of form twice is no score."""

    def answers(
        self, call: JudgeCall, leases: Sequence[Lease], pictures: Sequence[Pictures]
    ) -> list[dict[str, Any]]:
        raws = [[text] for text in self._ask(call, leases, pictures)]
        parsed = [parse_answer(raw[0], call) for raw in raws]
        again = [i for i, parts in enumerate(parsed) if parts is None]
        if again:
            reminded = call.model_copy(update={"text": call.text + REMINDER})
            chosen = [leases[i] for i in again], [pictures[i] for i in again]
            for i, text in zip(again, self._ask(reminded, *chosen), strict=True):
                raws[i].append(text)
                parsed[i] = parse_answer(text, call)
        return [
            {
                "name": call.name,
                "value": min(parts.values()) if parts is not None else None,
                "parts": parts,
                "raw": raw,
            }
            for parts, raw in zip(parsed, raws, strict=True)
        ]

    def _ask(
        self, call: JudgeCall, leases: Sequence[Lease], pictures: Sequence[Pictures]
    ) -> list[str]:
        if self.judge.settings.temperature == 0 or len(leases) == 1:
            return self._generate(call, leases, pictures)
        # Drawn one by one, so that neighbours in a group take no part in the draw.
        pairs = zip(leases, pictures, strict=True)
        return [self._generate(call, [lease], [seen])[0] for lease, seen in pairs]

    def _generate(
        self, call: JudgeCall, leases: Sequence[Lease], pictures: Sequence[Pictures]
    ) -> list[str]:
        inputs = self.inputs(call, leases, pictures)
        if self.judge.settings.temperature > 0:
            torch.manual_seed(leases[0].task.seed or 0)
        tokens = self.model.generate(**inputs, generation_config=self._generation())
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts

    def _generation(self) -> GenerationConfig:
        """Our own: the model's usually samples, and what is not set here is taken from it."""
        own, settings = self.model.generation_config, self.judge.settings
        sampling = {"temperature": settings.temperature, "top_k": 0, "top_p": 1.0}
        if settings.temperature == 0:
            sampling = {}
        return GenerationConfig(
            max_new_tokens=settings.max_new_tokens or USUAL_ANSWER,
            do_sample=bool(sampling),
            eos_token_id=own.eos_token_id,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            # A penalty would push down the question's own words, digits and braces included.
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            **sampling,
        )
