"""Trains transformer and text encoder: `python -m demo_model.train_transformer --help`.

Rectified flow: x_t = s * noise + (1 - s) * x0, and the transformer, told t = 1 - s, predicts
x0 - noise (Z-Image's pipeline negates it). s follows the scheduler's own grid: a logit-normal
draw with shift 3, and a fifth of the draws uniform.
"""

import copy
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImagePipeline

from demo_model.architecture import (
    TRAINED,
    Sizes,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
)
from demo_model.batched import velocity
from demo_model.fast_attention import install
from demo_model.pictures import sheet
from demo_model.stage import begin, publish, sheet_file, stage_parser, state_file
from demo_model.train_vae import adam, update
from demo_model.training_loop import Average, Loop
from demo_model.training_set import ALL_SIZES, USUAL_SIZE, Batch, Group, TrainingSet

EMPTY_SHARE = 0.08  # of the captions: the unconditional half of guidance
PEAK_RATE = 1.2e-3
EMA = 0.998
SHIFT = 3.0
BATCHES = {"cpu": 1.0, "cuda": 4.0}  # factor: a GPU is not busy with less
USUAL_SHARE = 0.45  # of the time that there is, for pictures of the usual size alone
SAVING = 6.0  # seconds that saving takes in the end
SHOWN = (
    "a red house on the left and a green tree on the right on grass at day",
    "a big yellow star on the left on sand at night",
    "an orange cat on the right on grass at day",
    "a yellow car on the left on the street at sunset",
)


def noise_levels(count: int) -> torch.Tensor:
    """[count] values of s."""
    s = torch.sigmoid(torch.randn(count))
    s = SHIFT * s / (1 + (SHIFT - 1) * s)
    return torch.where(torch.rand(count) < 0.2, torch.rand(count), s)


def encode_captions(encoder: Any, batch: Batch) -> torch.Tensor:
    """What the pipeline reads from the text encoder, [n, 32 or 64, width]."""
    length = batch.ids.shape[1]
    mask = torch.arange(length, device=batch.ids.device)[None] < batch.words[:, None]
    with torch.autocast(batch.ids.device.type, torch.bfloat16):
        states = encoder(input_ids=batch.ids, attention_mask=mask, output_hidden_states=True)
    found: torch.Tensor = states.hidden_states[-2].float()
    return found


def flow_loss(transformer: Any, captions: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean squared error of the predicted velocity, every picture counting the same."""
    x0 = batch.pictures.tokens
    s = noise_levels(len(x0)).to(x0.device)
    noise = torch.randn_like(x0)
    mixed = s[:, None, None] * noise + (1 - s[:, None, None]) * x0
    shown = replace(batch.pictures, tokens=mixed)
    with torch.autocast(x0.device.type, torch.bfloat16):
        out = velocity(transformer, shown, 1 - s, captions, batch.words, batch.alike)
    error = (out.float() - (x0 - noise)).square().mean(-1)
    real = shown.real
    return ((error * real).sum(1) / real.sum(1)).mean()


@dataclass(frozen=True)
class Phase:
    """The usual size comes first: shapes are learnt faster where all pictures are alike."""

    name: str
    groups: tuple[Group, ...]
    steps: int
    peak_rate: float
    seed: int
    until: float | None


class Trainer:
    """Transformer and text encoder, trained together, with a moving average of both."""

    def __init__(self, vae: Any, device: torch.device, seed: int, sizes: Sizes = TRAINED) -> None:
        torch.manual_seed(seed)
        self.vae = vae
        self.tokenizer = build_tokenizer()
        self.encoder = build_text_encoder(len(self.tokenizer))
        self.transformer = build_transformer(
            sizes.dim, sizes.layers, latent_channels=sizes.latent_channels
        )
        for final in self.transformer.all_final_layer.values():
            torch.nn.init.zeros_(final.linear.weight)
            torch.nn.init.zeros_(final.linear.bias)
        torch.nn.init.normal_(self.encoder.embed_tokens.weight, std=1.0)
        self.models = {
            "transformer": self.transformer.to(device),
            "encoder": self.encoder.to(device),
        }
        self.average = Average(self.models, EMA)
        # The pipeline reads hidden_states[-2]: the second layer of the encoder never counts.
        trained = [self.transformer, self.encoder.embed_tokens, self.encoder.layers[0]]
        self.optimizer = adam(
            (p for m in trained for p in m.parameters()), PEAK_RATE, 0.01, (0.9, 0.98)
        )
        install(self.transformer, compiled=device.type == "cpu")

    def parts(self) -> dict[str, Any]:
        """What training changes."""
        return {**self.models, "average": self.average, "optimizer": self.optimizer}

    def step(self, batch: Batch, rate: float, number: int) -> torch.Tensor:
        """One batch at a learning rate; returns its loss."""
        loss = flow_loss(self.transformer, encode_captions(self.encoder, batch), batch)
        update(self.optimizer, loss, rate)
        self.average.follow(self.models, number)
        return loss.detach()

    def pipeline(self) -> ZImagePipeline:
        """With the averaged weights."""
        return ZImagePipeline(
            scheduler=build_scheduler(),
            vae=self.vae,
            text_encoder=self.average.models["encoder"],
            tokenizer=self.tokenizer,
            transformer=self.average.models["transformer"],
        )

    def save(self, out: Path) -> None:
        """The averaged pipeline, in bfloat16 safetensors."""
        kept = copy.deepcopy(self.pipeline()).to("cpu", torch.bfloat16)
        kept.save_pretrained(out, safe_serialization=True)

    def show(self, file: Path) -> None:
        """Some pictures by the averaged weights."""
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(i) for i in range(len(SHOWN))]
        images = pipeline(
            list(SHOWN),
            width=128,
            height=128,
            num_inference_steps=8,
            guidance_scale=0.0,
            generator=generators,
        ).images
        sheet([images]).save(file)


def train(
    trainer: Trainer, training_set: TrainingSet, phase: Phase, out: Path, before: int
) -> None:
    """One phase.

    Args:
        before: steps of the phases before it.
    """
    loop = Loop(
        phase.name,
        phase.steps,
        phase.seed,
        trainer.parts(),
        state_file(out, phase.name.replace(" ", "_")),
        phase.until,
        lambda: trainer.show(sheet_file(out)),
    )
    for step in loop:
        batch = training_set.batch(loop.rng, EMPTY_SHARE)
        loop.note(trainer.step(batch, phase.peak_rate * loop.rate(step), before + step))


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=7_000, help="at the usual size")
    parser.add_argument("--more-steps", type=int, default=9_500, help="at all sizes")
    parser.add_argument("--scenes", type=int, default=20_000)
    options = begin(parser)
    seed, device = options.seed, options.device
    vae = AutoencoderKL.from_pretrained(options.vae).eval().to(device)
    vae.register_to_config(_name_or_path="")  # the shipped config names no folder of this machine
    trainer = Trainer(vae, device, seed)
    middle, end = phase_ends(options.until)
    phases = (
        Phase("usual size", (USUAL_SIZE,), options.steps, PEAK_RATE, seed, middle),
        Phase("all sizes", ALL_SIZES, options.more_steps, PEAK_RATE / 2, seed + 1, end),
    )
    before = 0
    for phase in phases:
        training_set = TrainingSet(
            phase.groups,
            options.scenes,
            vae,
            phase.seed,
            factor=BATCHES[device.type],
            processes=options.threads,
        )
        train(trainer, training_set, phase, options.out, before)
        before += phase.steps
    publish(trainer.save, options.out)


def phase_ends(until: float | None) -> tuple[float | None, float | None]:
    """When to end the first phase, and the second."""
    if until is None:
        return None, None
    now, end = time.time(), until - SAVING
    return now + USUAL_SHARE * (end - now), end


if __name__ == "__main__":
    main()
