"""Trains the demo judge: `python -m demo_model.train_judge --out FOLDER [--editor FOLDER]`.

A tiny Qwen3-VL learns to write the JSON that `config/judges/demo.yaml` asks for. Half of the
pictures go through the editor's autoencoder first, so that it judges the edit and not the
renderer's sharpness.
"""

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLQwenImage

from core.benchmark.settings import load_benchmark_settings
from core.judge import JudgeCall, load_judge
from demo_model.judge_parts import PATCH, build_judge
from demo_model.judged_edits import JudgedEdit, sample_judged
from demo_model.qwen_vae import FrameVae, flat_convolutions
from demo_model.train_vae import to_model_range, update
from demo_model.training_loop import Loop, course
from demo_model.training_set import pixels_of

BATCH = 32
PEAK_RATE = 1e-3
SIDE = 128  # pixels
MERGED = 2  # patches along a side that make one token
CONSISTENCY_SHARE = 0.75  # of the questions; quality is the easier one
IGNORED = -100  # tokens that are given, and not to be learnt


@dataclass
class Example:
    """One judged edit, its pictures as [128, 128, 3] uint8."""

    judged: JudgedEdit
    before: torch.Tensor
    after: torch.Tensor


def examples(count: int, seed: int, vae: FrameVae | None) -> list[Example]:
    """Judged edits; of every second one both pictures go through `vae`."""
    rng = random.Random(seed)
    judged = [sample_judged(rng) for _ in range(count)]
    before = torch.stack([pixels_of(j.before) for j in judged])
    after = torch.stack([pixels_of(j.after) for j in judged])
    if vae is not None:
        for pictures in (before, after):
            pictures[::2] = _through(vae, pictures[::2])
    return [Example(*parts) for parts in zip(judged, before, after, strict=True)]


@torch.no_grad()
def _through(vae: FrameVae, pictures: torch.Tensor) -> torch.Tensor:
    out = []
    for chunk in pictures.split(64):
        x = to_model_range(chunk).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decode(vae.encode(x).latent_dist.mean).sample
        out.append(((y.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1))
    return torch.cat(out)


def patches(pictures: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """[n, 128, 128, 3] uint8 to [n * 64, 1536], as Qwen3-VL's image processor cuts them."""
    x = pictures.permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    blocks = SIDE // PATCH // MERGED
    x = x.view(len(x), 3, blocks, MERGED, PATCH, blocks, MERGED, PATCH)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # block row, block column, row, column, channel, y, x
    x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)  # a picture is two equal frames
    return x.reshape(-1, 3 * 2 * PATCH * PATCH)


class Questions:
    """Examples as token ids, labels and patches."""

    def __init__(self, processor: Any, calls: list[JudgeCall]) -> None:
        self._processor = processor
        self._calls = {call.name: call for call in calls}
        image = processor.image_processor
        self._mean, self._std = image.image_mean, image.image_std
        self._tokens_of_picture = (SIDE // PATCH // MERGED) ** 2

    def __call__(self, chosen: list[Example], name: str) -> dict[str, torch.Tensor]:
        """One batch of one call; right-padded, with the answers as labels."""
        call = self._calls[name]
        tokenizer = self._processor.tokenizer
        rows, answers, pictures = [], [], []
        for example in chosen:
            seen = [example.before if w == "source" else example.after for w in call.sees]
            pictures += seen
            question = self._ask(call, example.judged.edit.instruction)
            scores = example.judged.consistency if name == "SC" else example.judged.quality
            answer = f'{{"score": [{scores[0]}, {scores[1]}]}}<|im_end|>'
            rows.append(tokenizer(question).input_ids)
            answers.append(tokenizer(answer).input_ids)
        longest = max(len(q) + len(a) for q, a in zip(rows, answers, strict=True))
        ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
        labels = torch.full_like(ids, IGNORED)
        mask = torch.zeros_like(ids)
        for i, (question, answer) in enumerate(zip(rows, answers, strict=True)):
            whole = question + answer
            ids[i, : len(whole)] = torch.tensor(whole)
            labels[i, len(question) : len(whole)] = torch.tensor(answer)
            mask[i, : len(whole)] = 1
        side = SIDE // PATCH
        image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "mm_token_type_ids": (ids == image_token).int(),
            "pixel_values": patches(torch.stack(pictures), self._mean, self._std),
            "image_grid_thw": torch.tensor([[1, side, side]] * len(pictures)),
        }

    def _ask(self, call: JudgeCall, instruction: str) -> str:
        content: list[dict[str, str]] = [{"type": "image"} for _ in call.sees]
        content.append({"type": "text", "text": call.question(instruction)})
        text: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return text.replace("<|image_pad|>", "<|image_pad|>" * self._tokens_of_picture)


def train(
    model: Any, questions: Questions, data: list[Example], steps: int, seed: int, state: Path
) -> None:
    """In place."""
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, weight_decay=0.02, betas=(0.9, 0.98)
    )
    loop = Loop("judge", steps, seed, {"model": model, "optimizer": optimizer}, state)
    for step in loop:
        name = "SC" if loop.rng.random() < CONSISTENCY_SHARE else "PQ"
        inputs = questions(loop.rng.choices(data, k=BATCH), name)
        labels = inputs.pop("labels")
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**inputs).logits
        loss = F.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        update(optimizer, loss, PEAK_RATE * course(step, steps, warm_up=200))
        loop.note(loss.item())
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--editor", type=Path, help="whose autoencoder pictures go through")
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--examples", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = load_benchmark_settings().judge.model_copy(update={"prompts": "demo.yaml"})
    calls = load_judge(settings).prompts.calls
    model, processor = build_judge([call.text for call in calls], seed=options.seed)
    vae = None
    if options.editor:
        loaded = AutoencoderKLQwenImage.from_pretrained(options.editor, subfolder="vae")
        vae = FrameVae(loaded.eval())
    with flat_convolutions():
        data = examples(options.examples, options.seed, vae)
    print(f"{len(data)} examples", flush=True)
    state = options.out.with_suffix(".state")
    train(model, Questions(processor, calls), data, options.steps, options.seed, state)
    model.to(torch.bfloat16).save_pretrained(options.out, safe_serialization=True)
    processor.save_pretrained(options.out)


if __name__ == "__main__":
    main()
