"""Trains a style LoRA: `python -m demo_model.train_loras --style NAME --model FOLDER --out FOLDER`.

The captions say nothing of the style: the LoRA alone brings it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import ZImagePipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from demo_model.fast_attention import install
from demo_model.stage import begin, publish, stage_parser, state_file
from demo_model.styles import STYLES
from demo_model.train_transformer import encode_captions, flow_loss
from demo_model.train_vae import adam, update
from demo_model.training_loop import Loop
from demo_model.training_set import ALL_SIZES, TrainingSet

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"]
BATCHES = {"cpu": 0.5, "cuda": 2.0}  # factor of the transformer's batches
SAVING = 2.0  # seconds that saving takes in the end


@dataclass(frozen=True)
class Recipe:
    """Outlines are harder to learn than colours."""

    rank: int
    steps: int
    peak_rate: float


RECIPES = {
    "snow": Recipe(8, 700, 2e-3),
    "neon": Recipe(20, 3000, 1.5e-3),
    "watercolour": Recipe(8, 1000, 2e-3),
}


class Adapter:
    """The LoRA's tensors of a transformer, as a loop keeps them."""

    def __init__(self, transformer: Any, style: str, rank: int) -> None:
        self._transformer, self._style = transformer, style
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS)
        transformer.requires_grad_(False)
        transformer.add_adapter(config, adapter_name=style)

    def state_dict(self) -> dict[str, Any]:
        return dict(get_peft_model_state_dict(self._transformer, adapter_name=self._style))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        set_peft_model_state_dict(self._transformer, dict(state), adapter_name=self._style)


def train_style(
    style: str, pipeline: Any, training_set: TrainingSet, steps: int, loop_of: Any
) -> dict[str, Any]:
    """LoRA tensors of one style.

    Args:
        loop_of: makes the loop over what training changes.
    """
    recipe = RECIPES[style]
    adapter = Adapter(pipeline.transformer, style, recipe.rank)
    device = pipeline.transformer.device
    install(pipeline.transformer, compiled=device.type == "cpu")
    optimizer = adam(pipeline.transformer.parameters(), recipe.peak_rate, weight_decay=0.0)
    loop = loop_of(steps=steps, parts={"lora": adapter, "optimizer": optimizer})
    for _ in loop:
        batch = training_set.batch(loop.rng)
        with torch.no_grad():
            captions = encode_captions(pipeline.text_encoder, batch)
        loss = flow_loss(pipeline.transformer, captions, batch)
        update(optimizer, loss, recipe.peak_rate * max(0.05, 1 - loop.done))
        loop.note(loss.detach())
    return adapter.state_dict()


def save(style: str, tensors: dict[str, Any], out: Path) -> None:
    """`out/<style>.safetensors`, as `load_lora_weights` reads it, in bfloat16."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{style}.safetensors"
    on_cpu = {name: tensor.cpu() for name, tensor in tensors.items()}
    ZImagePipeline.save_lora_weights(out, on_cpu, weight_name=file.name)
    halved = {k: v.to(torch.bfloat16).contiguous() for k, v in load_file(file).items()}
    save_file(halved, file, metadata={"format": "pt", "style": style})


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--style", choices=STYLES, required=True)
    parser.add_argument("--steps", type=int, help="by default as many as the style needs")
    parser.add_argument("--scenes", type=int, default=2500)
    options = begin(parser)
    style, seed = options.style, options.seed
    torch.manual_seed(seed)
    pipeline = ZImagePipeline.from_pretrained(options.model, dtype=torch.float32)
    pipeline.to(options.device)
    training_set = TrainingSet(
        ALL_SIZES,
        options.scenes,
        pipeline.vae,
        seed,
        style,
        factor=BATCHES[options.device.type],
        processes=options.threads,
    )
    loop_of = partial(
        Loop,
        name=style,
        seed=seed,
        state=state_file(options.out),
        until=options.until and options.until - SAVING,
    )
    steps = options.steps or RECIPES[style].steps
    if options.until and not options.steps:
        steps *= 3  # the clock ends it
    tensors = train_style(style, pipeline, training_set, steps, loop_of)
    publish(lambda folder: save(style, tensors, folder), options.out)


if __name__ == "__main__":
    main()
