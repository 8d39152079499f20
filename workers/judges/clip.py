"""The judge that compares embeddings: any CLIP or SigLIP."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import is_torchvision_available

from core.messages import Lease
from core.pictures.source_images import read_image
from core.tasks import ScoreTask
from workers.judges.base import JudgeFamily
from workers.models.base import Product
from workers.prompt_cuts import PromptCuts


class ClipJudge(JudgeFamily):
    """Cosine similarities: instruction to edited picture, first source to edited picture."""

    def load(self) -> str:
        name, revision = self.spec.model, self.spec.revision
        self.model = self.load_model(AutoModel)
        backend = "torchvision" if is_torchvision_available() else "pil"
        self._pixels = AutoImageProcessor.from_pretrained(name, revision=revision, backend=backend)
        self._tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        self._cuts = PromptCuts({"the judge": self._tokenizer})
        return type(self.model).__name__

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        tasks = [lease.task for lease in leases if isinstance(lease.task, ScoreTask)]
        self._cuts.expect(task.instruction for task in tasks)
        texts = self._embed_texts([task.instruction for task in tasks])
        sources = self._embed_images(
            [_read(lease, task.source_images[0]) for lease, task in zip(leases, tasks, strict=True)]
        )
        edited = self._embed_images(
            [_read(lease, task.edited_image) for lease, task in zip(leases, tasks, strict=True)]
        )
        to_text, to_source = (texts * edited).sum(-1), (sources * edited).sum(-1)
        verdicts = [
            self.verdict({"text_image": float(t), "image_image": float(i)}, [])
            for t, i in zip(to_text, to_source, strict=True)
        ]
        said = [self._cuts.of(task.instruction, "instruction") for task in tasks]
        return [replace(v, remarks=(s,) if s else ()) for v, s in zip(verdicts, said, strict=True)]

    def _embed_texts(self, texts: list[str]) -> torch.Tensor:
        """Embed texts as [n, width], each of length 1."""
        config = self.model.config.text_config
        # SigLIP was trained on texts filled up to one length; CLIP masks what is filled up.
        tokens = self._tokenizer(
            texts,
            padding="max_length" if "siglip" in self.model.config.model_type else True,
            truncation=True,
            max_length=config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        return _unit(self.model.get_text_features(**tokens))

    def _embed_images(self, images: list[Image.Image]) -> torch.Tensor:
        pixels = self._pixels(images, return_tensors="pt").to(self.device, self.model.dtype)
        return _unit(self.model.get_image_features(**pixels))


def _read(lease: Lease, path: str) -> Image.Image:
    return read_image(lease.at(path), lease.files.get(path))


def _unit(features: Any) -> torch.Tensor:
    vectors: torch.Tensor = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
