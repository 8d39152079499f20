"""The judge without a question: similarities of embeddings, and differences of pixels.

What an edit is compared with says the end of a metric's name: `target`, a picture of a right
result, where the pair has one; `outside`, the source where the pair's mask lets nothing change;
`source`, the whole source; `caption`, the text of a right result. `clip_dir` compares the change of
pictures with that of captions (InstructPix2Pix, arXiv:2211.09800; Emu Edit, arXiv:2311.10089).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from core.judges.metrics import AFTER, BEFORE
from core.messages import Lease
from core.tasks import ScoreTask
from workers.judges.embeddings import EmbeddingJudge, read_picture
from workers.judges.pictures import edited_picture
from workers.judges.pixel_metrics import pixel_metrics
from workers.models.base import Product

ALIKE = 1e-6  # length of a difference of unit vectors below which it points nowhere


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
        """Add what the model says; returns remarks on texts that are too long for it."""
        vectors, before = self.embed_images(edited), self.embed_images(sources)
        remarks: list[tuple[str, ...]] = [()] * len(tasks)
        kind = "dino"
        if self.embeds_texts:
            kind, texts = "clip_i", [task.instruction for task in tasks]
            to_text = _products(self.embed_texts(texts), vectors)
            for found, value in zip(scores, to_text, strict=True):
                found["clip_t"] = value
            self._add_captions(scores, tasks, before, vectors)
            remarks = [self._cut(task) for task in tasks]
        for found, value in zip(scores, _products(before, vectors), strict=True):
            found[f"{kind}_source"] = value
        known = [i for i, target in enumerate(targets) if target is not None]
        if known:
            right = self.embed_images([target for target in targets if target is not None])
            for i, value in zip(known, _products(right, vectors[known]), strict=True):
                scores[i][f"{kind}_target"] = value
        return remarks

    def _add_captions(
        self,
        scores: Sequence[dict[str, float]],
        tasks: Sequence[ScoreTask],
        sources: torch.Tensor,
        edits: torch.Tensor,
    ) -> None:
        """Add how edits agree with the captions of their rows, where those have any."""
        known = [i for i, task in enumerate(tasks) if task.fields.get(AFTER)]
        both = [i for i in known if tasks[i].fields.get(BEFORE)]
        texts = [tasks[i].fields[AFTER] for i in known] + [tasks[i].fields[BEFORE] for i in both]
        if not texts:
            return
        vectors = self.embed_texts(texts)
        right = dict(zip(known, vectors, strict=False))
        for i, text in right.items():
            scores[i]["clip_t_caption"] = float(text @ edits[i])
        for i, text in zip(both, vectors[len(known) :], strict=True):
            wanted, made = right[i] - text, edits[i] - sources[i]
            if min(wanted.norm(), made.norm()) > ALIKE:
                scores[i]["clip_dir"] = float(torch.cosine_similarity(wanted, made, dim=0))

    def _cut(self, task: ScoreTask) -> tuple[str, ...]:
        """Which of a task's texts the model sees cut."""
        texts = {"instruction": task.instruction}
        texts |= {name: task.fields[name] for name in (BEFORE, AFTER) if task.fields.get(name)}
        said = [self.cuts.of(text, name) for name, text in texts.items()]
        return tuple(words for words in said if words)


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
