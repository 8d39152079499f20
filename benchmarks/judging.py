"""A judge that writes against one that reads probabilities: `python -m benchmarks.judging`.

A tiny Qwen3-VL with random weights on a CPU; `benchmarks.gpu` does the same in full size.
"""

import gc
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from transformers import GenerationConfig

from apps.edit_benchmark.settings import load_benchmark_settings
from benchmarks import full_size
from benchmarks.gpu_parts import Place
from benchmarks.gpu_rows import Row, add
from benchmarks.turns import Turn, noise, peak_gib, say, table, worker_spec
from core.judge import load_judge
from core.messages import Lease
from core.tasks import ScoreTask
from workers.judges.vlm import Ask, VlmJudge
from workers.judges.vlm_logits import VlmLogitsJudge

CHECKPOINT_BYTES = 20 * 10**9
ANSWER_TOKENS = 256
TOGETHER = 8  # edits that a judge sees at once


class LongAnswers(VlmJudge):
    """A model with random weights might fall silent at once; an answer with reasons is long."""

    def _generation(self, ask: Ask) -> GenerationConfig:
        generation = super()._generation(ask)
        generation.min_new_tokens = generation.max_new_tokens = ANSWER_TOKENS
        return generation


def score_table(model: Path, work: Path, device: str, side: int, rounds: int) -> None:
    """One forward pass against an answer in words, about two pictures of `side` pixels."""
    picture = noise(work / "judged.png", side)
    leases = [
        Lease(str(n), 1, ScoreTask("make it night", (str(picture),), str(picture)), None, "-", "-")
        for n in range(TOGETHER)
    ]
    talks = _judge(LongAnswers, model, device, "vlm", "viescore.yaml")
    reads = _judge(VlmLogitsJudge, model, device, "vlm_logits", "viescore_logits.yaml")
    turns = {
        f"{ANSWER_TOKENS} tokens, one by one": _asked(talks, leases, 1),
        f"{ANSWER_TOKENS} tokens, {TOGETHER} at once": _asked(talks, leases, TOGETHER),
        "one forward pass, one by one": _asked(reads, leases, 1),
        f"one forward pass, {TOGETHER} at once": _asked(reads, leases, TOGETHER),
    }
    table(f"Judging SC, two pictures of {side}x{side}", turns, TOGETHER, rounds)


def on_gpu(place: Place) -> None:
    """The same for `benchmarks.gpu`: a row each, as soon as it is measured."""
    torch.set_grad_enabled(False)
    folder = place.work / "checkpoints"
    if shutil.disk_usage(place.work).free < CHECKPOINT_BYTES:
        shutil.rmtree(folder / "z-image", ignore_errors=True)
    model, processor = full_size.tiny_judge() if place.tiny else full_size.qwen3_vl(place.device)
    _save(model, processor, folder / "qwen3-vl")
    del model
    side = 128 if place.tiny else 1024
    picture = str(noise(place.work / "judged.png", side))
    leases = [
        Lease(str(n), 1, ScoreTask("make it night", (picture,), picture), None, "-", "-")
        for n in range(TOGETHER)
    ]
    table = f"Judging SC with Qwen3-VL-8B, two pictures of {side} x {side}"
    for kind, family, prompts, word in (
        ("vlm_logits", VlmLogitsJudge, "viescore_logits.yaml", "one forward pass"),
        ("vlm", LongAnswers, "viescore.yaml", f"{ANSWER_TOKENS} tokens"),
    ):
        judge = _judge(family, folder / "qwen3-vl", place.device, kind, prompts)
        for together in (TOGETHER, 1):
            chosen = leases if together > 1 else leases[: 1 + (kind == "vlm_logits")]
            turn = _asked(judge, chosen, together)
            turn()
            started = time.perf_counter()
            turn()
            each = (time.perf_counter() - started) / len(chosen)
            values = {"s an edit": each, "peak GiB": peak_gib()}
            add(place.out, Row(table, f"{word}, {together} at once", values))
        judge.model = judge.processor = None  # no two models at once
        del judge, turn
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _save(model: Any, processor: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _asked(family: Any, leases: Sequence[Lease], together: int) -> Turn:
    """The first question about every edit; what is wrong in form is not asked for again."""
    call = family.judge.prompts.calls[0]
    ask = family.answers
    if isinstance(family, VlmJudge):
        call, ask = family.first_ask(call), family._generate

    def turn() -> None:
        for start in range(0, len(leases), together):
            group = leases[start : start + together]
            ask(call, group, [_shown(lease) for lease in group])

    return turn


def _shown(lease: Lease) -> dict[str, list[Image.Image]]:
    assert isinstance(lease.task, ScoreTask)
    picture = Image.open(lease.task.edited_image).convert("RGB")
    return {"source": [picture], "edited": [picture]}


def _judge(family: Any, model: Path, device: str, kind: str, prompts: str) -> Any:
    settings = load_benchmark_settings()
    judge = settings.judge.model_copy(
        update={"type": kind, "prompts": prompts, "image_area": 1048576}
    )
    loaded = family(
        replace(worker_spec(model, device, "score", settings), judge=load_judge(judge)), say
    )
    loaded.load()
    return loaded


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    with TemporaryDirectory() as work:
        model = _save(*full_size.tiny_judge(), Path(work) / "judge")
        score_table(model, Path(work), "cpu", 128, rounds=3)


if __name__ == "__main__":
    main()
