"""The judge that gives a reward: a number from a head on what a chat model makes of a question."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from core.errors import InputError
from core.judge_calls import JudgeCall
from core.messages import Lease
from workers.judges.chat_model import ChatModel
from workers.judges.pictures import Pictures
from workers.judges.reward_heads import heads_in, vocabulary_in

# EditReward's code for these embeds pictures itself and leaves the positions open, so that it was
# trained with plain ones, and not with those in rows and columns that the model gives pictures.
PLAIN_POSITIONS = ("qwen2_vl", "qwen2_5_vl")


class RewardJudge(ChatModel):
    """Reads each call's head where the prompt file's `reward_token` stands, or at the end."""

    def load(self) -> str:
        folder = Path(self.spec.model)
        heads = heads_in(folder)
        wanted = [call.head for call in self.judge.prompts.forms]
        if max(wanted) >= len(heads):
            raise InputError(
                f"judge.prompts: a question wants head {max(wanted)}, and {folder.name} has "
                f"{len(heads)}, from 0."
            )
        name = super().load()
        self._heads = [head.to(self.device).eval().requires_grad_(False) for head in heads]
        self._token: int | None = None
        if token := self.judge.prompts.reward_token:
            self.processor.tokenizer.add_special_tokens({"additional_special_tokens": [token]})
            self._token = self.processor.tokenizer.convert_tokens_to_ids(token)
            if self._token >= self.model.get_input_embeddings().num_embeddings:
                raise InputError(
                    f"judge.prompts: the token {token} is none that {folder.name} was trained with."
                )
        return name

    def load_settings(self) -> dict[str, Any]:
        """Its vocabulary may be larger than its config says, which may be the base model's."""
        config = AutoConfig.from_pretrained(self.spec.model)
        known = vocabulary_in(Path(self.spec.model))
        if known is not None:
            config.get_text_config().vocab_size = known
        return {**super().load_settings(), "config": config}

    def answers(
        self, call: JudgeCall, leases: Sequence[Lease], pictures: Sequence[Pictures]
    ) -> list[dict[str, Any]]:
        inputs = self.inputs(call, leases, pictures)
        if self.model.config.model_type in PLAIN_POSITIONS:
            places = inputs["attention_mask"].long().cumsum(-1) - 1
            inputs["position_ids"] = places.clamp(min=0).expand(3, -1, -1)
        hidden = self.model.base_model(**inputs, use_cache=False)[0]
        found = []
        for states, ids in zip(hidden, inputs["input_ids"], strict=True):
            # Questions are filled up in front, so the last token is each one's own.
            place = len(ids) - 1
            if self._token is not None:
                places = (ids == self._token).nonzero().flatten()
                if len(places) != 1:
                    raise InputError(
                        f"judge.prompts: the question {call.name} has to hold the token "
                        f"{self.judge.prompts.reward_token} once, and holds it {len(places)} times."
                    )
                place = int(places[0])
            state = states[place].to(self.device, torch.float32)
            outputs = self._heads[call.head](state).tolist()
            value = call.as_reported(outputs[0])
            found.append({"name": call.name, "value": value, "problem": None, "outputs": outputs})
        return found
