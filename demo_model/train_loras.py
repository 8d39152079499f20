"""Trains the style LoRAs: `python -m demo_model.train_loras --model FOLDER --out FOLDER`.

The captions say nothing of the style: the LoRA alone brings it.
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ZImagePipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file

from demo_model.captions import caption
from demo_model.fast_attention import install
from demo_model.scenes import Scene
from demo_model.styles import STYLES, render_styled
from demo_model.train_transformer import TextInput, flow_loss
from demo_model.train_vae import update
from demo_model.training_set import ALL_SIZES, TrainingSet

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"]


@dataclass(frozen=True)
class Recipe:
    """Outlines are harder to learn than colours."""

    rank: int
    steps: int
    peak_rate: float


RECIPES = {
    "snow": Recipe(8, 700, 2e-3),
    "neon": Recipe(24, 3000, 1.5e-3),
    "watercolour": Recipe(8, 1000, 2e-3),
}


def train_style(style: str, model: Path, scenes: int, seed: int) -> dict[str, Any]:
    """LoRA tensors of one style, in bfloat16."""
    recipe = RECIPES[style]
    torch.manual_seed(seed)
    rng = random.Random(seed)
    pipeline = ZImagePipeline.from_pretrained(model, dtype=torch.float32)

    def draw(scene: Scene, width: int, height: int, rng: random.Random) -> Image.Image:
        return render_styled(scene, style, width, height, rng)

    training_set = TrainingSet(ALL_SIZES, scenes, pipeline.vae, draw, seed, halvings=1)
    transformer = pipeline.transformer.requires_grad_(False)
    transformer.add_adapter(
        LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=TARGETS),
        adapter_name=style,
    )
    install(transformer)
    text = TextInput()
    trained = [p for p in transformer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.peak_rate, weight_decay=0.0)
    started = time.monotonic()
    for step in range(recipe.steps):
        chosen, latents = training_set.batch(rng)
        ids, mask = text([caption(scene, rng) for scene in chosen])
        with torch.no_grad():
            states = pipeline.text_encoder(
                input_ids=ids, attention_mask=mask, output_hidden_states=True
            ).hidden_states[-2]
        loss = flow_loss(transformer, states, mask, latents)
        rate = recipe.peak_rate * max(0.05, 1 - step / recipe.steps)
        update(optimizer, loss, rate)
        if step % 50 == 0:
            seconds = time.monotonic() - started
            print(f"{style} step {step} loss {loss.item():.4f} {seconds:.0f} s", flush=True)
    return dict(get_peft_model_state_dict(transformer, adapter_name=style))


def save(style: str, tensors: dict[str, Any], out: Path) -> None:
    """`out/<style>.safetensors`, as `load_lora_weights` reads it."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{style}.safetensors"
    ZImagePipeline.save_lora_weights(out, tensors, weight_name=file.name)
    halved = {k: v.to(torch.bfloat16).contiguous() for k, v in load_file(file).items()}
    save_file(halved, file, metadata={"format": "pt", "style": style})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--scenes", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for style in options.styles:
        tensors = train_style(style, options.model, options.scenes, options.seed)
        save(style, tensors, options.out)


if __name__ == "__main__":
    main()
