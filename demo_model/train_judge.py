"""Trains the demo judge: `python -m demo_model.train_judge --out FOLDER [--vae FOLDER]`.

A tiny Qwen3-VL learns to write the JSON that `config/judges/demo.yaml` asks for. Half of the
renders go through the editor's autoencoder first, so that it judges the edit and not the
renderer's sharpness; with `--pictures` it learns from what editors made, too.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLQwenImage
from PIL import Image
from transformers import Qwen3VLForConditionalGeneration

from apps.edit_benchmark.settings import load_benchmark_settings
from core.judge import load_judge
from demo_model.editor_pictures import load_pictures
from demo_model.edits import Edit
from demo_model.fast_attention import install_vision
from demo_model.judge_parts import build_judge, give_edges
from demo_model.judge_questions import IGNORED, NAMING, PATCHES, SIDE, Example, Questions
from demo_model.judged_edits import JudgedEdit, judge_picture, sample_judged
from demo_model.pictures import map_all
from demo_model.qwen_vae import FrameVae, flat_convolutions
from demo_model.stage import begin, publish, stage_parser, state_file
from demo_model.train_vae import adam, compiled_blocks, to_model_range, update
from demo_model.training_loop import Loop
from demo_model.training_set import pixels_of

BATCH = {"SC": 32, "PQ": 64, NAMING: 32}
PEAK_RATE = 1e-3
SHARES = {"SC": 0.6, "PQ": 0.3, NAMING: 0.1}  # of the steps
SHARES_OF_EDITED = {"SC": 0.5, "PQ": 0.45, NAMING: 0.05}  # the same with pictures by editors
# Of a batch: renders, what editors made, and of that again what they missed.
SOURCES = (0.5, 0.25, 0.25)
SAVING = 4.0  # seconds that saving takes in the end
MOVED = 4  # pixels at most by which an example is moved, so that it is not learnt by heart


def examples(count: int, seed: int, vae: FrameVae | None, processes: int = 1) -> list[Example]:
    """Judged edits; of every second one the pictures go through `vae`."""
    judged = map_all(_sampled, [(f"{seed} {number}",) for number in range(count)], processes)
    if vae is not None:
        judged[::2] = _redrawn(judged[::2], vae, ("before", "after", "clean"))
    return [Example(j, pixels_of(j.before), pixels_of(j.after)) for j in judged]


def _sampled(seed: str) -> JudgedEdit:
    return sample_judged(random.Random(seed))


def edited_examples(
    folder: Path, seed: int, vae: FrameVae | None, processes: int = 1
) -> tuple[list[Example], list[Example]]:
    """All that editors made, as `editor_pictures` keeps it, and of that what they missed."""
    pictures = load_pictures(folder)
    shown = [(edit, image, f"{seed} {i}") for i, (edit, image) in enumerate(pictures)]
    judged = map_all(_judged, shown, processes)
    # Edits come back as copies.
    asked_otherwise = [j.edit != edit for j, (edit, _) in zip(judged, pictures, strict=True)]
    if vae is not None:
        judged = _redrawn(judged, vae, ("clean",))  # no editor draws better than its `vae`
    made = [Example(j, pixels_of(j.before), pixels_of(j.after)) for j in judged]
    missed = [
        example
        for example, otherwise in zip(made, asked_otherwise, strict=True)
        if not otherwise and example.judged.consistency != (10, 10)
    ]
    return made, missed


def _judged(edit: Edit, image: Image.Image, seed: str) -> JudgedEdit:
    return judge_picture(edit, image, random.Random(seed))


def _redrawn(judged: Sequence[JudgedEdit], vae: FrameVae, names: Sequence[str]) -> list[JudgedEdit]:
    """With these of their pictures as `vae` draws them."""
    for name in names:
        drawn = _through(vae, torch.stack([pixels_of(getattr(j, name)) for j in judged]))
        pictures: list[dict[str, Any]] = [{name: Image.fromarray(one.numpy())} for one in drawn]
        judged = [replace(j, **one) for j, one in zip(judged, pictures, strict=True)]
    return list(judged)


@torch.no_grad()
def _through(vae: FrameVae, pictures: torch.Tensor) -> torch.Tensor:
    device = next(vae.parameters()).device
    out = []
    for chunk in pictures.split(64):
        x = to_model_range(chunk.to(device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            y = vae.decode(vae.encode(x).latent_dist.mean).sample
        out.append(((y.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu())
    return torch.cat(out)


def train(
    model: Any,
    questions: Questions,
    sources: Sequence[Sequence[Example]],
    steps: int,
    seed: int,
    state: Path,
    quality_first: int = 0,
    until: float | None = None,
    peak_rate: float = PEAK_RATE,
) -> None:
    """In place.

    Args:
        sources: renders, then what editors made and missed, if there is any.
        quality_first: steps in the beginning that ask for PQ alone. Without them, one question
            among others, it is answered blindly.
    """
    shares = SHARES if len(sources) == 1 else SHARES_OF_EDITED
    model.train()
    device = model.device
    if device.type == "cpu":
        model.set_attn_implementation("eager")  # the fused one's way back is slow
    install_vision(model.model.visual, PATCHES)
    optimizer = adam(model.parameters(), peak_rate, 0.02, (0.9, 0.98))
    loop = Loop("judge", steps, seed, {"model": model, "optimizer": optimizer}, state, until)
    for step in loop:
        name = "PQ"
        if step >= quality_first:
            name = loop.rng.choices(list(shares), list(shares.values()))[0]
        origins = loop.rng.choices(sources, SOURCES[: len(sources)], k=BATCH[name])
        inputs = questions([_moved(loop.rng.choice(o), loop.rng) for o in origins], name)
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        labels = inputs.pop("labels")
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(**inputs).logits
        loss = F.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        update(optimizer, loss, peak_rate * loop.rate(step, warm_up=200))
        loop.note(loss.detach(), name)
    model.eval()


def _moved(example: Example, rng: random.Random) -> Example:
    """Both pictures, their edges repeated."""
    down, right = rng.randint(-MOVED, MOVED), rng.randint(-MOVED, MOVED)
    pixels = torch.arange(SIDE)
    rows, columns = (pixels - down).clamp(0, SIDE - 1), (pixels - right).clamp(0, SIDE - 1)
    before, after = (p[rows][:, columns] for p in (example.before, example.after))
    return replace(example, before=before, after=after)


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--vae", type=Path, help="the editor's, through which pictures go")
    parser.add_argument("--pictures", type=Path, help="made by `editor_pictures`")
    parser.add_argument("--first", type=Path, help="a judge to go on from")
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--peak-rate", type=float, default=PEAK_RATE)
    parser.add_argument("--quality-first", type=int, default=0, help="steps of PQ alone")
    parser.add_argument("--examples", type=int, default=12_000)
    options = begin(parser)
    settings = load_benchmark_settings().judge.model_copy(update={"prompts": "demo.yaml"})
    calls = load_judge(settings).prompts.calls
    model, processor = build_judge([call.text for call in calls], seed=options.seed)
    give_edges(model)
    if options.first:
        trained = Qwen3VLForConditionalGeneration.from_pretrained(options.first)
        model.load_state_dict(trained.state_dict())
    model.to(options.device)
    vae = None
    if options.vae:
        loaded = AutoencoderKLQwenImage.from_pretrained(options.vae).eval()
        vae = FrameVae(loaded.to(options.device))
    with flat_convolutions(), compiled_blocks(vae or torch.nn.Identity()):
        sources = [examples(options.examples, options.seed, vae, options.threads)]
        if options.pictures:
            made = edited_examples(options.pictures, options.seed, vae, options.threads)
            sources += [some for some in made if some]  # a good editor misses nothing
    print(*map(len, sources), "examples", flush=True)
    train(
        model,
        Questions(processor, calls),
        sources,
        options.steps,
        options.seed,
        state_file(options.out),
        options.quality_first,
        options.until and options.until - SAVING,
        options.peak_rate,
    )

    def save(folder: Path) -> None:
        model.to("cpu", torch.bfloat16).save_pretrained(folder, safe_serialization=True)
        processor.save_pretrained(folder)

    publish(save, options.out)


if __name__ == "__main__":
    main()
