"""The demo judge's training questions: token ids, labels and patches.

Scores alone teach its eyes next to nothing: after 2,000 steps its guesses were those of a blind
judge. So its reasoning comes first: what there is before and after, side by side, which change
was made, and which was asked for; of quality, how much is wrong with each object and in each part
of the picture. It is also asked, by a picture without words, to name what there is to see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.judge_calls import JudgeCall
from demo_model.judge_parts import PATCH
from demo_model.judged_edits import JudgedEdit, aligned, changes
from demo_model.scenes import KINDS, Scene

SIDE = 128  # pixels
PATCHES = (SIDE // PATCH) ** 2  # of a picture
MERGED = 2  # patches along a side that make one token
IGNORED = -100  # tokens that are given, and not to be learnt
NAMING = "naming"  # the question without words


@dataclass
class Example:
    """One judged edit, its pictures as [128, 128, 3] uint8."""

    judged: JudgedEdit
    before: torch.Tensor
    after: torch.Tensor


@dataclass(frozen=True)
class Question:
    """What is shown, asked and to be answered."""

    pictures: tuple[torch.Tensor, ...]
    words: str
    answer: str


class Questions:
    """Puts examples as the judge's processor would, and adds the answers as labels."""

    def __init__(self, processor: Any, calls: Sequence[JudgeCall]) -> None:
        self._processor, self._tokenizer = processor, processor.tokenizer
        self._calls = {call.name: call for call in calls}
        image = processor.image_processor
        self._mean, self._std = image.image_mean, image.image_std

    def __call__(self, chosen: Sequence[Example], name: str) -> dict[str, torch.Tensor]:
        """One batch of one call (or of `NAMING`), right-padded."""
        questions = [self._question(example, name) for example in chosen]
        asked = [self._tokenizer(self._prompt(q)).input_ids for q in questions]
        answers = [self._tokenizer(q.answer + "<|im_end|>").input_ids for q in questions]
        pictures = [picture for q in questions for picture in q.pictures]
        side = SIDE // PATCH
        return {
            **self._rows(asked, answers),
            "pixel_values": patches(torch.stack(pictures), self._mean, self._std),
            "image_grid_thw": torch.tensor([[1, side, side]] * len(pictures)),
        }

    def _question(self, example: Example, name: str) -> Question:
        judged = example.judged
        if name == NAMING:
            return Question((example.before,), "", names(judged.edit.source))
        call = self._calls[name]
        seen = tuple(example.before if w == "source" else example.after for w in call.sees)
        words = call.question(judged.edit.instruction)
        if name == "SC":
            edit, shown = judged.edit, judged.shown
            parts = (
                pairs(edit.source, shown),
                news(edit.source, shown),
                news(edit.source, edit.target),
            )
            return Question(seen, words, _json("; ".join(parts), judged.consistency))
        rows = [" ".join(map(str, row)) for row in judged.damage]
        reasoning = f"{drawing(judged)}; {', '.join(rows)}"
        return Question(seen, words, _json(reasoning, judged.quality))

    def _prompt(self, question: Question) -> str:
        content: list[dict[str, str]] = [{"type": "image"} for _ in question.pictures]
        content.append({"type": "text", "text": question.words})
        text: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return text.replace("<|image_pad|>", "<|image_pad|>" * (PATCHES // MERGED**2))

    def _rows(self, asked: list[list[int]], answers: list[list[int]]) -> dict[str, torch.Tensor]:
        longest = max(len(q) + len(a) for q, a in zip(asked, answers, strict=True))
        ids = torch.full((len(asked), longest), self._tokenizer.pad_token_id)
        labels = torch.full_like(ids, IGNORED)
        mask = torch.zeros_like(ids)
        for i, (question, answer) in enumerate(zip(asked, answers, strict=True)):
            whole = question + answer
            ids[i, : len(whole)] = torch.tensor(whole)
            labels[i, len(question) : len(whole)] = torch.tensor(answer)
            mask[i, : len(whole)] = 1
        image_token = self._tokenizer.convert_tokens_to_ids("<|image_pad|>")
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "mm_token_type_ids": (ids == image_token).int(),
        }


def _json(reasoning: str, score: Sequence[int]) -> str:
    return f'{{"reasoning": "{reasoning}", "score": {list(score)}}}'


def names(scene: Scene) -> str:
    """Sky, ground, then from left to right colour, kind and place of each object."""
    things = [thing for thing, _ in aligned(scene, scene)]
    words = [w for thing in things for w in (thing.colour, thing.kind, thing.position)]
    return ", ".join([scene.sky, scene.ground, *words])


def pairs(before: Scene, after: Scene) -> str:
    """As `names`, but each followed by what it is afterwards."""
    words = [f"{before.sky} {after.sky}", f"{before.ground} {after.ground}"]
    for thing, now in aligned(before, after):
        colour, place = (now.colour, now.position) if now else ("remove", "remove")
        words.append(f"{thing.kind} {thing.colour} {colour} {thing.position} {place}")
    return ", ".join(words)


def news(before: Scene, after: Scene) -> str:
    """What is new: sky, ground, then each object that has another colour or place, or is gone."""
    order = ["sky", "ground", *(thing.kind for thing, _ in aligned(before, after))]
    found = sorted(changes(before, after), key=lambda new: (order.index(new[0]), new[1]))
    return ", ".join(f"{of} {new}" if of in KINDS else new for of, new in found) or "no"


def drawing(judged: JudgedEdit) -> str:
    """How badly each object is drawn, from left to right."""
    severity = dict(zip(judged.shown.things, judged.malformed, strict=True))
    order = [thing for thing, _ in aligned(judged.shown, judged.shown)]
    return ", ".join(f"{thing.kind} {severity[thing]}" for thing in order) or "no"


def patches(pictures: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """[n, 128, 128, 3] uint8 to [n * 64, 1536], as Qwen3-VL's image processor cuts them."""
    x = pictures.permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    blocks = SIDE // PATCH // MERGED
    x = x.view(len(x), 3, blocks, MERGED, PATCH, blocks, MERGED, PATCH)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # block row, block column, row, column, channel, y, x
    x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)  # a picture is two equal frames
    return x.reshape(-1, 3 * 2 * PATCH * PATCH)
