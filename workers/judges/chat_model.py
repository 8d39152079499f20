"""Any vision-language chat model of transformers on one worker's device."""

import gc
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from core.errors import InputError
from core.judge_calls import JudgeCall
from core.judge_rows import Row, row_of
from core.judge_thought import closing, left_open
from core.messages import Lease
from core.tasks import ScoreTask
from core.worker_spec import WorkerSpec
from workers.judges.asking import heard
from workers.judges.base import JudgeFamily
from workers.judges.passes import Passes, for_pass, why_unscored
from workers.judges.pictures import Pictures, pictures_of
from workers.models.base import Log, Product, Verdict
from workers.processors import load_processor


class ChatModel(JudgeFamily):
    """Loads with `AutoModelForImageTextToText`; subclasses turn questions into scores."""

    def __init__(self, spec: WorkerSpec, log: Log) -> None:
        super().__init__(spec, log)
        self.processor: Any = None
        self.opened = ""  # the mark of a thought that the newest prompt opens before the answer

    def load(self) -> str:
        self.model = self.load_model(AutoModelForImageTextToText, **self.load_settings())
        self.processor = load_processor(self.spec.model, self.spec.revision)
        # New tokens follow the last one: what is shorter is filled up in front.
        self.processor.tokenizer.padding_side = "left"
        return type(self.model).__name__

    def load_settings(self) -> dict[str, Any]:
        """More arguments of the model's `from_pretrained`."""
        experts = self.judge.settings.experts_implementation
        return {"experts_implementation": experts} if experts else {}

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        rows = [self._row(lease) for lease in leases]
        area, prompts = self.judge.settings.image_area, self.judge.prompts
        pictures = [pictures_of(lease, prompts, area) for lease in leases]
        number = self.judge.settings.num_pass or 1
        passes = [
            self._one_pass([for_pass(lease, i) for lease in leases], rows, pictures)
            for i in range(number)
        ]
        return [
            self._verdict(lease, rows[i], [answers[i] for answers in passes])
            for i, lease in enumerate(leases)
        ]

    def _row(self, lease: Lease) -> Row:
        assert isinstance(lease.task, ScoreTask)
        row = row_of(lease.task)
        problem = self.judge.prompts.problem_of(row)
        if problem is not None:
            raise InputError(problem)
        return row

    def _one_pass(
        self, leases: Sequence[Lease], rows: Sequence[Row], pictures: Sequence[Pictures]
    ) -> list[list[dict[str, Any]]]:
        """All answers about each edit, in the order of the calls."""
        found: list[list[dict[str, Any]]] = [[] for _ in leases]
        leases = list(leases)
        for call in self.judge.prompts.calls:
            forms = [call.for_row(row) for row in rows]
            for form in {id(f): f for f in forms if f is not None}.values():
                chosen = [i for i, other in enumerate(forms) if other is form]
                asked = [leases[i] for i in chosen], [pictures[i] for i in chosen]
                for i, answer in zip(chosen, self.answers(form, *asked), strict=True):
                    found[i].append(answer)
                    leases[i] = heard(leases[i], form, answer)
        return found

    @abstractmethod
    def answers(
        self,
        call: JudgeCall,
        leases: Sequence[Lease],
        pictures: Sequence[Pictures],
    ) -> list[dict[str, Any]]:
        """The judge's answer for each lease, with `value`: the call's score or None.

        Where it is None, `problem` says why.
        """

    def inputs(
        self,
        call: JudgeCall,
        leases: Sequence[Lease],
        pictures: Sequence[Pictures],
        suffix: str = "",
    ) -> Any:
        """Token ids, masks and pixels of one question about several edits.

        Args:
            suffix: the beginning of the answer.
        """
        texts, images = [], []
        captioned = self.model.config.model_type not in self.judge.prompts.uncaptioned
        for lease, seen in zip(leases, pictures, strict=True):
            assert isinstance(lease.task, ScoreTask)
            counts = {kind: len(p) for kind, p in seen.items()}
            pieces = call.pieces(row_of(lease.task), counts, captioned)
            shown = [seen[piece[1]][piece[2]] for piece in pieces if piece[0] == "picture"]
            content: list[dict[str, Any]] = [
                {"type": "image"} if piece[0] == "picture" else {"type": "text", "text": piece[1]}
                for piece in pieces
            ]
            text = self._chat([{"role": "user", "content": content}])
            self.opened = left_open(text)
            # An answer stands behind the thought: one that the template opens is ended at once.
            end = f"\n\n{closing(self.opened)}\n\n" if self.opened and suffix else ""
            texts.append(text + end + suffix)
            images.append(shown)
        pictures_shown = images if any(images) else None  # a question may be of words alone
        inputs = self.processor(
            text=texts, images=pictures_shown, padding=True, return_tensors="pt"
        )
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

    def _verdict(
        self, lease: Lease, row: Row, passes: Sequence[Sequence[dict[str, Any]]]
    ) -> Verdict:
        found = Passes.of(self.judge.prompts, row, passes)
        calls = [
            {**answer, "pass": number} if len(passes) > 1 else answer
            for number, answers in enumerate(passes)
            for answer in answers
        ]
        if found.scores is None:
            self.log("WARNING", why_unscored(lease, calls))
        return self.verdict(found.scores, calls, found.record(len(passes)))
