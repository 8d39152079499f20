"""The judge that compares embeddings: any CLIP or SigLIP."""

from collections.abc import Sequence
from dataclasses import replace

from core.errors import InputError
from core.messages import Lease
from core.tasks import ScoreTask
from workers.judges.embeddings import EmbeddingJudge, read_picture
from workers.judges.pictures import edited_picture
from workers.models.base import Product


class ClipJudge(EmbeddingJudge):
    """Cosine similarities: instruction to edited picture, first source to edited picture."""

    def load(self) -> str:
        kind = super().load()
        if not self.embeds_texts:
            raise InputError(
                f"judge.model: {self.spec.model_name} embeds no texts; a judge of type clip takes "
                "a CLIP or SigLIP, one of type metrics also a DINO."
            )
        return kind

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        tasks = [lease.task for lease in leases if isinstance(lease.task, ScoreTask)]
        both = list(zip(leases, tasks, strict=True))
        texts = self.embed_texts([task.instruction for task in tasks])
        sources = self.embed_images([read_picture(x, task.source_images[0]) for x, task in both])
        edited = self.embed_images([edited_picture(lease) for lease in leases])
        to_text, to_source = (texts * edited).sum(-1), (sources * edited).sum(-1)
        verdicts = [
            self.verdict({"text_image": float(t), "image_image": float(i)}, [])
            for t, i in zip(to_text, to_source, strict=True)
        ]
        said = [self.cuts.of(task.instruction, "instruction") for task in tasks]
        return [replace(v, remarks=(s,) if s else ()) for v, s in zip(verdicts, said, strict=True)]
