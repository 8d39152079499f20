"""Trains the demo editor: `python -m demo_model.train_editor --vae FOLDER --out FOLDER`.

Rectified flow as in Qwen-Image: x_t = s * noise + (1 - s) * x0; the transformer, told s, sees
x_t beside the source's latents and predicts noise - x0. What the edit changes counts more.
"""

import argparse
import copy
import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration

from demo_model.editor_parts import DROPPED, PATCH, PICTURE, TEMPLATE, build_pipeline
from demo_model.edits import Edit, sample_edit
from demo_model.fast_attention import install_joint
from demo_model.qwen_vae import FrameVae, flat_convolutions
from demo_model.train_transformer import EMA, noise_levels
from demo_model.train_vae import compiled_blocks, encode, update
from demo_model.training_loop import Loop, course
from demo_model.training_set import pixels_of

BATCH = 32
PEAK_RATE = 1.2e-3
SIDE = 128  # pixels
CHANGED = 0.25  # of a latent's deviation: from here on a token belongs to the edit
CHANGED_WEIGHT = 3.0  # more for these: most of a picture is only to be copied
TEXT_TOKENS = 24  # after the dropped ones; shorter instructions are filled up
IMAGE_TOKENS = 4  # of the text encoder, at 56 x 56 pixels
GRID = SIDE // 16  # transformer tokens along a side


class EditSet:
    """Edits with the latents of their pictures, each encoded once."""

    def __init__(self, count: int, vae: FrameVae, config: Any, seed: int) -> None:
        rng = random.Random(seed)
        self.edits = [sample_edit(rng) for _ in range(count)]
        shift = torch.tensor(config.latents_mean)[:, None, None]
        scale = torch.tensor(config.latents_std)[:, None, None]
        self.sources = self._encoded([e.before for e in self.edits], vae, shift, scale)
        self.targets = self._encoded([e.after for e in self.edits], vae, shift, scale)

    def _encoded(self, draw: list[Any], vae: FrameVae, shift: Any, scale: Any) -> torch.Tensor:
        """[count, 64, 64] packed latents in half precision."""
        packed = []
        for start in range(0, len(draw), 256):
            pictures = torch.stack([pixels_of(d(SIDE)) for d in draw[start : start + 256]])
            packed.append(pack((encode(vae, pictures) - shift) / scale).half())
        return torch.cat(packed)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[n, 16, h, w] to [n, h / 2 * w / 2, 64], as the pipeline packs them."""
    n, c, h, w = latents.shape
    blocks = latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(n, h // 2 * (w // 2), 4 * c)


class TextInput:
    """Instructions as the pipeline's processor puts them to the text encoder."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._picture = PICTURE.replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS)

    def __call__(self, instructions: list[str]) -> dict[str, torch.Tensor]:
        tokens = self.tokenizer(
            [TEMPLATE.format(self._picture + text) for text in instructions],
            padding="max_length",
            max_length=DROPPED + TEXT_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        count = len(instructions)
        # The vision tower ends in zeros whatever it sees.
        pixels = torch.zeros(count * 4 * IMAGE_TOKENS, 3 * 2 * PATCH * PATCH)
        return {
            "input_ids": tokens.input_ids,
            "attention_mask": tokens.attention_mask,
            "pixel_values": pixels,
            "image_grid_thw": torch.tensor([[1, 4, 4]] * count),
            "mm_token_type_ids": (
                tokens.input_ids == self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
            ).int(),
        }


class Trainer:
    """Transformer and text encoder, trained together, with a moving average of both."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.text = TextInput(pipeline.tokenizer)
        self.encoder, self.transformer = pipeline.text_encoder.train(), pipeline.transformer.train()
        torch.nn.init.zeros_(self.transformer.proj_out.weight)
        torch.nn.init.zeros_(self.transformer.proj_out.bias)
        torch.nn.init.normal_(self.encoder.get_input_embeddings().weight, std=1.0)
        self.encoder.model.visual.requires_grad_(False)
        self.averages = [copy.deepcopy(m).eval() for m in (self.transformer, self.encoder)]
        models = (self.transformer, self.encoder.model.language_model)
        parameters = [p for m in models for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.98)
        )
        install_joint(self.transformer)
        self.encoder.set_attn_implementation("eager")  # the fused one is slow on its way back

    def start_from(self, folder: Path) -> None:
        """Take the weights of an editor that was trained before."""
        loaded = (
            QwenImageTransformer2DModel.from_pretrained(folder, subfolder="transformer"),
            Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, subfolder="text_encoder"),
        )
        for before, *models in zip(
            loaded, (self.transformer, self.encoder), self.averages, strict=True
        ):
            for model in models:
                model.load_state_dict(before.state_dict())

    def parts(self) -> dict[str, Any]:
        """What training changes."""
        transformer, encoder = self.averages
        return {
            "transformer": self.transformer,
            "encoder": self.encoder,
            "average transformer": transformer,
            "average encoder": encoder,
            "optimizer": self.optimizer,
        }

    def step(self, step: int, edits: list[Edit], source: Any, target: Any, rate: float) -> float:
        """One batch, its latents packed; returns its loss."""
        inputs = self.text([edit.instruction for edit in edits])
        with torch.autocast("cpu", torch.bfloat16):
            states = self.encoder(**inputs, output_hidden_states=True).hidden_states[-1]
        mask = inputs["attention_mask"][:, DROPPED:].bool()
        loss = self._flow_loss(states[:, DROPPED:].float(), mask, source, target)
        update(self.optimizer, loss, PEAK_RATE * rate)
        keep = min(EMA, (2 + step) / (11 + step))
        with torch.no_grad():
            for average, model in zip(self.averages, (self.transformer, self.encoder), strict=True):
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)
        return loss.item()

    def _flow_loss(self, states: Any, mask: Any, source: Any, target: Any) -> torch.Tensor:
        s = noise_levels(len(target))
        noise = torch.randn_like(target)
        scale = s[:, None, None]
        x_t = scale * noise + (1 - scale) * target
        with torch.autocast("cpu", torch.bfloat16):
            out = self.transformer(
                hidden_states=torch.cat([x_t, source], 1),
                timestep=s,
                encoder_hidden_states=states,
                encoder_hidden_states_mask=mask,
                img_shapes=[[(1, GRID, GRID)] * 2] * len(target),
                return_dict=False,
            )[0]
        error = (out[:, : target.shape[1]].float() - (noise - target)).square().mean(-1)
        changed = (target - source).abs().mean(-1) > CHANGED
        loss: torch.Tensor = (error * (1 + CHANGED_WEIGHT * changed)).mean()
        return loss

    def save(self, out: Path) -> None:
        """The averaged pipeline, in bfloat16 safetensors."""
        kept = self.pipeline.transformer, self.pipeline.text_encoder
        transformer, encoder = (copy.deepcopy(m).to(torch.bfloat16) for m in self.averages)
        vae = copy.deepcopy(self.pipeline.vae).to(torch.bfloat16)
        parts = {**self.pipeline.components, "transformer": transformer, "text_encoder": encoder}
        type(self.pipeline)(**{**parts, "vae": vae}).save_pretrained(out, safe_serialization=True)
        self.pipeline.transformer, self.pipeline.text_encoder = kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=Path, help="an editor to go on from, with other edits")
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--edits", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipeline = build_pipeline(seed=options.seed)
    pipeline.vae = AutoencoderKLQwenImage.from_pretrained(options.vae).eval()
    pipeline.vae.register_to_config(_name_or_path="")
    frames = FrameVae(pipeline.vae)
    with flat_convolutions(), compiled_blocks(frames):
        edits = EditSet(options.edits, frames, pipeline.vae.config, options.seed)
    trainer = Trainer(pipeline)
    if options.first:
        trainer.start_from(options.first)
    state = options.out.with_suffix(".state")
    loop = Loop("editor", options.steps, options.seed, trainer.parts(), state)
    for step in loop:
        picks = torch.randint(len(edits.edits), (BATCH,))
        chosen = [edits.edits[i] for i in picks.tolist()]
        source, target = edits.sources[picks].float(), edits.targets[picks].float()
        loop.note(trainer.step(step, chosen, source, target, course(step, options.steps)))
    trainer.save(options.out)


if __name__ == "__main__":
    main()
