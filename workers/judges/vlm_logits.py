"""The judge that answers by probabilities: one forward pass, no words.

The score is the expectation over the probabilities of the score tokens at the place where
the answer's number would stand (G-Eval, arXiv:2303.16634; VQAScore, arXiv:2404.01291).
"""

from collections.abc import Sequence
from typing import Any

import torch

from core.errors import InputError
from core.judge_calls import JudgeCall
from core.messages import Lease
from workers.judges.chat_model import ChatModel
from workers.judges.pictures import Pictures


class VlmLogitsJudge(ChatModel):
    """Reads the next token's distribution after each call's `prefix`."""

    def answers(
        self,
        call: JudgeCall,
        leases: Sequence[Lease],
        pictures: Sequence[Pictures],
    ) -> list[dict[str, Any]]:
        ids, values = self._score_tokens(call)
        inputs = self.inputs(call, leases, pictures, suffix=call.prefix)
        logits = self.model(**inputs, logits_to_keep=1).logits[:, -1].float()
        every = logits.log_softmax(-1)[:, ids]
        among = every.softmax(-1)
        expected = (among * torch.tensor(values, device=among.device)).sum(-1)
        masses = every.exp().sum(-1)
        return [
            {
                "name": call.name,
                **self._value(call.as_reported(float(score)), float(mass)),
                "probabilities": dict(zip(call.tokens, map(float, shares), strict=True)),
                "mass": float(mass),
            }
            for score, shares, mass in zip(expected, among, masses, strict=True)
        ]

    def _value(self, score: float, mass: float) -> dict[str, Any]:
        """The call's value: no score where the score tokens together are improbable."""
        least = self.judge.settings.minimum_mass
        if mass < least:
            problem = (
                f"the score tokens have a probability of {mass:.2g} together, below "
                f"judge.minimum_mass {least:g}"
            )
            return {"value": None, "problem": problem}
        return {"value": score, "problem": None}

    def _score_tokens(self, call: JudgeCall) -> tuple[list[int], list[float]]:
        """Token ids and values; the token as it follows the prefix."""
        tokenizer = self.processor.tokenizer
        before = tokenizer(call.prefix, add_special_tokens=False).input_ids
        ids = []
        for token in call.tokens:
            after = tokenizer(call.prefix + token, add_special_tokens=False).input_ids
            if after[: len(before)] != before or len(after) != len(before) + 1:
                raise InputError(
                    f"judge.prompts: {token!r} is not one token after {call.prefix!r} "
                    f"for {self.spec.model_name}."
                )
            ids.append(after[-1])
        return ids, list(call.tokens.values())
