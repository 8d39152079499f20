"""Trains the demo editor: `python -m demo_model.train_editor --vae FOLDER --out FOLDER`.

Rectified flow as in Qwen-Image: x_t = s * noise + (1 - s) * x0; the transformer, told s, sees
x_t beside the source's latents and predicts noise - x0. What the edit changes counts more.
"""

import copy
import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage
from PIL import Image

from core.tasks import EditTask
from demo_model.editor_parts import DROPPED, PICTURE, TEMPLATE, TRAINED, build_pipeline
from demo_model.edits import CATEGORIES, Edit, sample_edit
from demo_model.fast_attention import install_joint
from demo_model.pictures import draw_all, sheet
from demo_model.qwen_vae import FrameVae, flat_convolutions
from demo_model.stage import begin, publish, sheet_file, stage_parser, state_file
from demo_model.train_transformer import EMA, noise_levels
from demo_model.train_vae import adam, compiled_blocks, encode, update
from demo_model.training_loop import Average, Loop
from workers.models.families.qwen_image_edit import mark_pictures, set_working_resolution

BATCH = {"cpu": 32, "cuda": 128}
PEAK_RATE = 1.2e-3
SIDE = 128  # pixels
CHANGED = 0.25  # of a latent's deviation: from here on a token belongs to the edit
CHANGED_WEIGHT = 3.0  # more for these: most of a picture is only to be copied
TEXT_TOKENS = 24  # after the dropped ones; shorter instructions are filled up
IMAGE_TOKENS = 4  # of the text encoder, at 56 x 56 pixels
GRID = SIDE // TRAINED.token  # transformer tokens along a side
AT_ONCE = 2048  # pictures drawn before they are encoded
SAVING = 6.0  # seconds that saving takes in the end


class EditSet:
    """Edits with the latents of their pictures, each encoded once and kept on the device."""

    def __init__(
        self, count: int, vae: FrameVae, config: Any, seed: int, processes: int = 1
    ) -> None:
        rng = random.Random(seed)
        self.edits = [sample_edit(rng) for _ in range(count)]
        device = next(vae.parameters()).device
        shift = torch.tensor(config.latents_mean, device=device)[:, None, None]
        scale = torch.tensor(config.latents_std, device=device)[:, None, None]
        self.sources, self.targets = (
            self._encoded(after, vae, shift, scale, processes) for after in (False, True)
        )

    def _encoded(
        self, after: bool, vae: FrameVae, shift: torch.Tensor, scale: torch.Tensor, processes: int
    ) -> torch.Tensor:
        """[count, tokens, values] packed latents in half precision."""
        packed = []
        for start in range(0, len(self.edits), AT_ONCE):
            asked = [(edit, after) for edit in self.edits[start : start + AT_ONCE]]
            pictures = torch.from_numpy(draw_all(draw_edit, asked, processes))
            packed.append(pack((encode(vae, pictures) - shift) / scale).half())
        return torch.cat(packed)


def draw_edit(edit: Edit, after: bool) -> Image.Image:
    """The picture before it, or after it."""
    return edit.after(SIDE) if after else edit.before(SIDE)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[n, c, h, w] to [n, h / 2 * w / 2, 4 c], as the pipeline packs them."""
    n, c, h, w = latents.shape
    blocks = latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(n, h // 2 * (w // 2), 4 * c)


class TextInput:
    """Instructions as the pipeline's processor puts them to the text encoder."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._picture = PICTURE.replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS)

    def __call__(self, instructions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask."""
        tokens = self.tokenizer(
            [TEMPLATE.format(self._picture + text) for text in instructions],
            padding="max_length",
            max_length=DROPPED + TEXT_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        return tokens.input_ids, tokens.attention_mask


def text_places(encoder: Any, ids: torch.Tensor) -> torch.Tensor:
    """Positions [3, 1, length] of the tokens: every instruction has its picture at one place."""
    places: torch.Tensor = encoder.model.get_rope_index(
        input_ids=ids[:1],
        mm_token_type_ids=(ids[:1] == encoder.config.image_token_id).int(),
        image_grid_thw=torch.tensor([[1, 4, 4]]),
    )[0]
    return places


def text_states(
    encoder: Any, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """What the pipeline reads from the text encoder, all tokens.

    The vision tower ends in zeros whatever it sees: it is not asked.
    """
    pictures = ids == encoder.config.image_token_id
    found: torch.Tensor = encoder.model.language_model(
        inputs_embeds=encoder.get_input_embeddings()(ids) * ~pictures[..., None],
        attention_mask=mask,
        position_ids=places.expand(-1, len(ids), -1),
        use_cache=False,
    ).last_hidden_state
    return found


class Trainer:
    """Transformer and text encoder, trained together, with a moving average of both."""

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self.pipeline = pipeline
        self.text = TextInput(pipeline.tokenizer)
        self.places = text_places(pipeline.text_encoder, self.text([""])[0]).to(device)
        self.encoder, self.transformer = pipeline.text_encoder.train(), pipeline.transformer.train()
        torch.nn.init.zeros_(self.transformer.proj_out.weight)
        torch.nn.init.zeros_(self.transformer.proj_out.bias)
        torch.nn.init.normal_(self.encoder.get_input_embeddings().weight, std=1.0)
        self.encoder.model.visual.requires_grad_(False)
        self.models = {
            "transformer": self.transformer.to(device),
            "encoder": self.encoder.to(device),
        }
        self.average = Average(self.models, EMA)
        mark_pictures(self.average.models["encoder"])
        trained = (self.transformer, self.encoder.model.language_model)
        parameters = [p for m in trained for p in m.parameters()]
        self.optimizer = adam(parameters, PEAK_RATE, 0.01, (0.9, 0.98))
        on_cpu = device.type == "cpu"
        install_joint(self.transformer, compiled=on_cpu)
        if on_cpu:
            self.encoder.set_attn_implementation("eager")  # the fused one's way back is slow

    def parts(self) -> dict[str, Any]:
        """What training changes."""
        return {**self.models, "average": self.average, "optimizer": self.optimizer}

    def step(
        self,
        step: int,
        ids: torch.Tensor,
        mask: torch.Tensor,
        source: torch.Tensor,
        target: torch.Tensor,
        rate: float,
    ) -> torch.Tensor:
        """One batch, its latents packed; returns its loss."""
        with torch.autocast(ids.device.type, torch.bfloat16):
            states = text_states(self.encoder, ids, mask, self.places)
        loss = self._flow_loss(
            states[:, DROPPED:].float(), mask[:, DROPPED:].bool(), source, target
        )
        update(self.optimizer, loss, PEAK_RATE * rate)
        self.average.follow(self.models, step)
        return loss.detach()

    def _flow_loss(self, states: Any, mask: Any, source: Any, target: Any) -> torch.Tensor:
        s = noise_levels(len(target)).to(target.device)
        noise = torch.randn_like(target)
        scale = s[:, None, None]
        x_t = scale * noise + (1 - scale) * target
        with torch.autocast(target.device.type, torch.bfloat16):
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
        averaged = self.average.models
        transformer, encoder, vae = (
            copy.deepcopy(m).to("cpu", torch.bfloat16)
            for m in (averaged["transformer"], averaged["encoder"], self.pipeline.vae)
        )
        parts = {**self.pipeline.components, "transformer": transformer, "text_encoder": encoder}
        type(self.pipeline)(**{**parts, "vae": vae}).save_pretrained(out, safe_serialization=True)

    def show(self, file: Path) -> None:
        """Sources above what the averaged weights make of them."""
        averaged = {
            "transformer": self.average.models["transformer"],
            "text_encoder": self.average.models["encoder"],
        }
        pipeline = type(self.pipeline)(**{**self.pipeline.components, **averaged})
        pipeline.set_progress_bar_config(disable=True)
        settings = EditTask("", ("",), working_area=SIDE * SIDE, condition_area=64 * 64)
        set_working_resolution(pipeline, settings)
        rng = random.Random(0)
        edits = [sample_edit(rng, category) for category in CATEGORIES]
        made = [
            pipeline(
                image=[edit.before()],
                prompt=edit.instruction,
                width=SIDE,
                height=SIDE,
                num_inference_steps=8,
                true_cfg_scale=1.0,
                generator=torch.Generator().manual_seed(number),
            ).images[0]
            for number, edit in enumerate(edits)
        ]
        sheet([[edit.before() for edit in edits], made]).save(file)


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=14_000)
    parser.add_argument("--edits", type=int, default=24_000)
    options = begin(parser)
    seed, device = options.seed, options.device
    pipeline = build_pipeline(**vars(TRAINED), seed=seed)
    pipeline.vae = AutoencoderKLQwenImage.from_pretrained(options.vae).eval().to(device)
    pipeline.vae.register_to_config(_name_or_path="")
    frames = FrameVae(pipeline.vae)
    with flat_convolutions(), compiled_blocks(frames):
        edits = EditSet(options.edits, frames, pipeline.vae.config, seed, options.threads)
    trainer = Trainer(pipeline, device)
    ids, mask = trainer.text([edit.instruction for edit in edits.edits])
    loop = Loop(
        "editor",
        options.steps,
        seed,
        trainer.parts(),
        state_file(options.out),
        options.until and options.until - SAVING,
        lambda: trainer.show(sheet_file(options.out)),
    )
    for step in loop:
        picks = torch.randint(len(edits.edits), (BATCH[device.type],))
        words, there = (ids[picks].to(device), mask[picks].to(device)), picks.to(device)
        source, target = edits.sources[there].float(), edits.targets[there].float()
        loop.note(trainer.step(step, *words, source, target, loop.rate(step)))
    publish(trainer.save, options.out)


if __name__ == "__main__":
    main()
