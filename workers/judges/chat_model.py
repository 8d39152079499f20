"""Any vision-language chat model of transformers on one worker's device."""

import gc
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from core.judge_calls import JudgeCall
from core.judge_thought import closing, left_open
from core.messages import Lease
from core.pictures.source_images import read_image
from core.tasks import ScoreTask
from core.worker_spec import WorkerSpec
from workers.judges.base import JudgeFamily
from workers.models.base import Log, Product, Verdict
from workers.processors import load_processor


class ChatModel(JudgeFamily):
    """Loads with `AutoModelForImageTextToText`; subclasses turn questions into scores."""

    def __init__(self, spec: WorkerSpec, log: Log) -> None:
        super().__init__(spec, log)
        self.processor: Any = None
        self.opened = ""  # the mark of a thought that the newest prompt opens before the answer

    def load(self) -> str:
        experts = self.judge.settings.experts_implementation
        more = {"experts_implementation": experts} if experts else {}
        self.model = self.load_model(AutoModelForImageTextToText, **more)
        self.processor = load_processor(self.spec.model, self.spec.revision)
        # New tokens follow the last one: what is shorter is filled up in front.
        self.processor.tokenizer.padding_side = "left"
        return type(self.model).__name__

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        pictures = [_pictures(lease, self.judge.settings.image_area) for lease in leases]
        answers = [self.answers(call, leases, pictures) for call in self.judge.prompts.calls]
        return [
            self._verdict(lease, [of_call[i] for of_call in answers])
            for i, lease in enumerate(leases)
        ]

    @abstractmethod
    def answers(
        self,
        call: JudgeCall,
        leases: Sequence[Lease],
        pictures: Sequence[dict[str, list[Image.Image]]],
    ) -> list[dict[str, Any]]:
        """The judge's answer for each lease, with `value`: the call's score or None.

        Where it is None, `problem` says why.
        """

    def inputs(
        self,
        call: JudgeCall,
        leases: Sequence[Lease],
        pictures: Sequence[dict[str, list[Image.Image]]],
        suffix: str = "",
    ) -> Any:
        """Token ids, masks and pixels of one question about several edits.

        Args:
            suffix: the beginning of the answer.
        """
        texts, images = [], []
        for lease, seen in zip(leases, pictures, strict=True):
            assert isinstance(lease.task, ScoreTask)
            shown = [picture for what in call.sees for picture in seen[what]]
            content: list[dict[str, Any]] = [{"type": "image"} for _ in shown]
            content.append({"type": "text", "text": call.question(lease.task.instruction)})
            text = self._chat([{"role": "user", "content": content}])
            self.opened = left_open(text)
            # An answer stands behind the thought: one that the template opens is ended at once.
            end = f"\n\n{closing(self.opened)}\n\n" if self.opened and suffix else ""
            texts.append(text + end + suffix)
            images.append(shown)
        inputs = self.processor(text=texts, images=images, padding=True, return_tensors="pt")
        return inputs.to(self.device, self.model.dtype)

    def too_many(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def free_memory(self, failures: int = 1) -> str | None:
        self.too_many()
        return super().free_memory(failures)

    def _chat(self, messages: list[dict[str, Any]]) -> str:
        text: str = self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def _verdict(self, lease: Lease, answers: list[dict[str, Any]]) -> Verdict:
        scores = self.judge.prompts.scores({a["name"]: a["value"] for a in answers})
        if scores is None:
            problems = [f"{a['name']}: {a['problem']}" for a in answers if a["value"] is None]
            self.log("WARNING", f"{lease.task.task_id}: no score: {'; '.join(problems)}")
        return self.verdict(scores, answers)


def _pictures(lease: Lease, area: int | None) -> dict[str, list[Image.Image]]:
    """What a call may show, at most `area` pixels each."""
    task = lease.task
    assert isinstance(task, ScoreTask)
    sources = [read_image(lease.at(p), lease.files.get(p)) for p in task.source_images]
    edit = task.edited_image
    edited = read_image(lease.at(edit), lease.files.get(edit), "edited_image")
    return {
        "source": [_at_most(picture, area) for picture in sources],
        "edited": [_at_most(edited, area)],
    }


def _at_most(picture: Image.Image, area: int | None) -> Image.Image:
    if area is None or picture.width * picture.height <= area:
        return picture
    factor = (area / (picture.width * picture.height)) ** 0.5
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS)
