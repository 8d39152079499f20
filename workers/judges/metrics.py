"""The judge without a question: similarities of embeddings, and differences of pixels.

What an edit is compared with says the end of a metric's name: `target`, a picture of a right
result, where the pair has one; `outside`, the source where the pair's mask lets nothing change;
`source`, the whole source.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from core.messages import Lease
from core.tasks import ScoreTask
from workers.judges.embeddings import EmbeddingJudge, read_picture
from workers.judges.pictures import edited_picture
from workers.judges.pixel_metrics import pixel_metrics
from workers.models.base import Product


class MetricsJudge(EmbeddingJudge):
    """CLIP-I and CLIP-T of a CLIP or SigLIP, DINO of a DINO, and with both L1, L2, PSNR, SSIM."""

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        tasks = [lease.task for lease in leases if isinstance(lease.task, ScoreTask)]
        both = list(zip(leases, tasks, strict=True))
        edited = [edited_picture(lease) for lease in leases]
        sources = [read_picture(lease, task.source_images[0]) for lease, task in both]
        targets = [
            read_picture(lease, task.target_images[0]) if task.target_images else None
            for lease, task in both
        ]
        masks = [
            read_picture(lease, task.mask) if task.mask is not None else None
            for lease, task in both
        ]
        scores = [
            _of_pixels(edit, source, target, mask)
            for edit, source, target, mask in zip(edited, sources, targets, masks, strict=True)
        ]
        remarks = self._add_similarities(scores, tasks, edited, sources, targets)
        return [
            replace(self.verdict(found, []), remarks=words)
            for found, words in zip(scores, remarks, strict=True)
        ]

    def _add_similarities(
        self,
        scores: Sequence[dict[str, float]],
        tasks: Sequence[ScoreTask],
        edited: Sequence[Image.Image],
        sources: Sequence[Image.Image],
        targets: Sequence[Image.Image | None],
    ) -> list[tuple[str, ...]]:
        """Add what the model says; returns remarks on instructions that are too long for it."""
        vectors = self.embed_images(edited)
        remarks: list[tuple[str, ...]] = [()] * len(tasks)
        kind = "dino"
        if self.embeds_texts:
            kind, texts = "clip_i", [task.instruction for task in tasks]
            to_text = _products(self.embed_texts(texts), vectors)
            for found, value in zip(scores, to_text, strict=True):
                found["clip_t"] = value
            said = [self.cuts.of(text, "instruction") for text in texts]
            remarks = [(words,) if words else () for words in said]
        to_source = _products(self.embed_images(sources), vectors)
        for found, value in zip(scores, to_source, strict=True):
            found[f"{kind}_source"] = value
        known = [i for i, target in enumerate(targets) if target is not None]
        if known:
            right = self.embed_images([target for target in targets if target is not None])
            for i, value in zip(known, _products(right, vectors[known]), strict=True):
                scores[i][f"{kind}_target"] = value
        return remarks


def _products(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    return [float(value) for value in (a * b).sum(-1)]


def _of_pixels(
    edit: Image.Image, source: Image.Image, target: Image.Image | None, mask: Image.Image | None
) -> dict[str, float]:
    """Against the target, and outside of the mask; against the source if there is neither."""
    found: dict[str, float] = {}
    if target is not None:
        found |= _named(pixel_metrics(edit, target), "target")
    if mask is not None:
        found |= _named(pixel_metrics(edit, source, mask), "outside")
    if target is None and mask is None:
        found |= _named(pixel_metrics(edit, source), "source")
    return found


def _named(metrics: dict[str, float], end: str) -> dict[str, float]:
    return {f"{name}_{end}": value for name, value in metrics.items()}
