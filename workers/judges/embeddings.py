"""Embeds pictures, and texts where the model can: CLIP, SigLIP, DINO."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import is_torchvision_available

from core.errors import InputError
from core.messages import Lease
from core.pictures.source_images import read_image
from workers.judges.base import JudgeFamily
from workers.prompt_cuts import PromptCuts

FIRST_DINO = "vit"  # its processor squeezes a picture into a square, as its authors do not
VISION_ONLY = ("dino", "vit", "ijepa")  # how types of models without texts begin


class EmbeddingJudge(JudgeFamily):
    """A model that turns pictures into vectors of length 1, whose products are similarities.

    Attributes:
        embeds_texts: it also turns texts into such vectors, as CLIP and SigLIP do.
    """

    def load(self) -> str:
        name, revision = self.spec.model, self.spec.revision
        self.model = self.load_model(AutoModel)
        kind = str(self.model.config.model_type)
        self.embeds_texts = hasattr(self.model, "get_text_features")
        if not self.embeds_texts and not kind.startswith(VISION_ONLY):
            raise InputError(
                f"judge.model: {self.spec.model_name} is of type {kind}; a judge of type "
                f"{self.judge.settings.type} takes a CLIP, SigLIP or DINO."
            )
        backend = "torchvision" if is_torchvision_available() else "pil"
        self._pixels = AutoImageProcessor.from_pretrained(name, revision=revision, backend=backend)
        if self.embeds_texts:
            self._tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
            self.cuts = PromptCuts({"the judge": self._tokenizer})
        return type(self.model).__name__

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts as [n, width], each of length 1."""
        self.cuts.expect(texts)
        config = self.model.config.text_config
        # SigLIP was trained on texts filled up to one length; CLIP masks what is filled up.
        tokens = self._tokenizer(
            list(texts),
            padding="max_length" if "siglip" in self.model.config.model_type else True,
            truncation=True,
            max_length=config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        return _unit(self.model.get_text_features(**tokens))

    def embed_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Embed pictures as [n, width], each of length 1."""
        images = list(images)
        if self.model.config.model_type == FIRST_DINO:
            images = [_middle(image, self.model.config.image_size) for image in images]
        pixels = self._pixels(images, return_tensors="pt").to(self.device, self.model.dtype)
        if self.embeds_texts:
            return _unit(self.model.get_image_features(**pixels))
        return _unit(self.model(**pixels).last_hidden_state[:, 0])  # of the class token


def read_picture(lease: Lease, path: str) -> Image.Image:
    """A picture of a task, with the contents that it had when the task was admitted."""
    return read_image(lease.at(path), lease.files.get(path))


def _middle(image: Image.Image, side: int) -> Image.Image:
    """The middle of a picture as DINO's own evaluation cuts it, which MagicBrush's has as well: of
    224 pixels each way, where the shorter side has been made 256."""
    shorter = side * 256 // 224
    width, height = (shorter * each // min(image.size) for each in image.size)
    small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return small.crop((left, top, left + side, top + side))


def _unit(features: Any) -> torch.Tensor:
    vectors: torch.Tensor = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
