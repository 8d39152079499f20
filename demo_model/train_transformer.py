"""Trains transformer and text encoder: `python -m demo_model.train_transformer --help`.

Rectified flow: x_t = s * noise + (1 - s) * x0, and the transformer, told t = 1 - s, predicts
x0 - noise (Z-Image's pipeline negates it). s follows the scheduler's own grid: a logit-normal
draw with shift 3, and a fifth of the draws uniform.
"""

import argparse
import copy
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ZImagePipeline

from demo_model.architecture import (
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
)
from demo_model.captions import caption
from demo_model.fast_attention import install
from demo_model.scenes import render
from demo_model.train_vae import update
from demo_model.training_set import ALL_SIZES, USUAL_SIZE, Group, TrainingSet

EMPTY_SHARE = 0.08  # of the captions: the unconditional half of guidance
PEAK_RATE = 1.2e-3
EMA = 0.998
SHIFT = 3.0
SAVE_EVERY = 600  # seconds
CAPTION_TOKENS = 64  # training pads to this, so that every step has one shape


def noise_levels(count: int) -> torch.Tensor:
    """[count] values of s."""
    s = torch.sigmoid(torch.randn(count))
    s = SHIFT * s / (1 + (SHIFT - 1) * s)
    return torch.where(torch.rand(count) < 0.2, torch.rand(count), s)


class TextInput:
    """Captions as the pipeline tokenizes them."""

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer()

    def __call__(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, both [batch, CAPTION_TOKENS]."""
        texts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": c}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=True,
            )
            for c in captions
        ]
        tokens = self.tokenizer(
            texts,
            padding="max_length",
            max_length=CAPTION_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        return tokens.input_ids, tokens.attention_mask.bool()


def flow_loss(
    transformer: Any, text_states: torch.Tensor, mask: torch.Tensor, x0: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Mean squared error of the predicted velocity on latents [16, h, w], each of its own size."""
    s = noise_levels(len(x0))
    noise = [torch.randn_like(x) for x in x0]
    mixed = [k * n + (1 - k) * x for k, n, x in zip(s, noise, x0, strict=True)]
    captions = [states[real].float() for states, real in zip(text_states, mask, strict=True)]
    with torch.autocast("cpu", torch.bfloat16):
        out = transformer([x.unsqueeze(1) for x in mixed], 1 - s, captions, return_dict=False)[0]
    errors = [
        F.mse_loss(o.float().squeeze(1), x - n) for o, x, n in zip(out, x0, noise, strict=True)
    ]
    return torch.stack(errors).mean()


@dataclass(frozen=True)
class Phase:
    """The usual size comes first: shapes are learnt faster where all pictures are alike."""

    name: str
    groups: tuple[Group, ...]
    steps: int
    peak_rate: float
    seed: int


class Trainer:
    """Transformer and text encoder, trained together, with a moving average of both."""

    def __init__(self, vae: Any, dim: int, layers: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.vae = vae
        self.text = TextInput()
        self.encoder = build_text_encoder(len(self.text.tokenizer))
        self.transformer = build_transformer(dim, layers)
        for final in self.transformer.all_final_layer.values():
            torch.nn.init.zeros_(final.linear.weight)
            torch.nn.init.zeros_(final.linear.bias)
        torch.nn.init.normal_(self.encoder.embed_tokens.weight, std=1.0)
        self.averages = [copy.deepcopy(m).eval() for m in (self.transformer, self.encoder)]
        # The pipeline reads hidden_states[-2]: the second layer of the encoder never counts.
        trained = [self.transformer, self.encoder.embed_tokens, self.encoder.layers[0]]
        parameters = [p for m in trained for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.98)
        )
        self.steps = 0
        install(self.transformer)

    def step(self, captions: list[str], x0: Sequence[torch.Tensor], rate: float) -> float:
        """One batch at a learning rate; returns its loss."""
        ids, mask = self.text(captions)
        with torch.autocast("cpu", torch.bfloat16):
            states = self.encoder(
                input_ids=ids, attention_mask=mask, output_hidden_states=True
            ).hidden_states[-2]
        loss = flow_loss(self.transformer, states, mask, x0)
        update(self.optimizer, loss, rate)
        self.steps += 1
        self._average()
        return loss.item()

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(EMA, (1 + self.steps) / (10 + self.steps))
        for average, model in zip(self.averages, (self.transformer, self.encoder), strict=True):
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)

    def save(self, out: Path) -> None:
        """The averaged pipeline, in bfloat16 safetensors."""
        transformer, encoder = (copy.deepcopy(m) for m in self.averages)
        pipeline = ZImagePipeline(
            scheduler=build_scheduler(),
            vae=self.vae,
            text_encoder=encoder,
            tokenizer=self.text.tokenizer,
            transformer=transformer,
        )
        copy.deepcopy(pipeline).to(torch.bfloat16).save_pretrained(out, safe_serialization=True)


def train(trainer: Trainer, training_set: TrainingSet, phase: Phase, out: Path) -> None:
    """One phase; saves the average now and then, and at its end."""
    rng = random.Random(phase.seed)
    started = saved = time.monotonic()
    losses = 0.0
    for step in range(phase.steps):
        scenes, latents = training_set.batch(rng)
        captions = ["" if rng.random() < EMPTY_SHARE else caption(s, rng) for s in scenes]
        done = step / phase.steps
        rate = min(1.0, (step + 1) / 100) * min(1.0, max(0.02, 2 * (1 - done)))
        losses += trainer.step(captions, latents, phase.peak_rate * rate)
        now = time.monotonic()
        if step % 100 == 99:
            seconds = now - started
            print(
                f"{phase.name} step {step + 1} loss {losses / 100:.4f} {seconds:.0f} s", flush=True
            )
            losses = 0.0
        if now - saved > SAVE_EVERY:
            trainer.save(out)
            saved = now
    trainer.save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=7_000, help="at the usual size")
    parser.add_argument("--more-steps", type=int, default=9_500, help="at all sizes")
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vae = AutoencoderKL.from_pretrained(options.vae).eval()
    vae.register_to_config(_name_or_path="")  # the shipped config names no folder of this machine
    trainer = Trainer(vae, options.dim, options.layers, options.seed)
    phases = (
        Phase("usual size", (USUAL_SIZE,), options.steps, PEAK_RATE, options.seed),
        Phase("all sizes", ALL_SIZES, options.more_steps, PEAK_RATE / 2, options.seed + 1),
    )
    for phase in phases:
        training_set = TrainingSet(phase.groups, options.scenes, vae, render, phase.seed)
        train(trainer, training_set, phase, options.out)


if __name__ == "__main__":
    main()
