"""The worker's editor against a plain diffusers loop, for `benchmarks.gpu`."""

from pathlib import Path

import torch
from diffusers import QwenImageEditPlusPipeline
from PIL import Image

from benchmarks.turns import Turn, noise, say, table, worker_spec
from core.benchmark.settings import load_benchmark_settings
from core.messages import Lease
from core.tasks import EditTask
from workers.models.native_image_editor import NativeImageEditor
from workers.processors import load_processor

WORDS = "make it night"
STEPS = 8


def edit_table(model: Path, work: Path, device: str, side: int, rounds: int) -> None:
    """One edit at a time of a picture of `side` pixels."""
    source = noise(work / "source.png", side)
    plain = QwenImageEditPlusPipeline.from_pretrained(
        model,
        dtype=torch.bfloat16,
        device_map=device,
        processor=load_processor(str(model), None, "processor"),  # without torchvision
    )
    plain.set_progress_bar_config(disable=True)
    task = EditTask(
        WORDS,
        (str(source),),
        seed=0,
        width=side,
        height=side,
        num_inference_steps=STEPS,
        true_cfg_scale=1.0,
        working_area=side * side,
    )
    lease = Lease("-", 1, task, None, "-", "-")

    def script() -> None:
        image = Image.open(source).convert("RGB")
        plain(
            image=[image],
            prompt=WORDS,
            width=side,
            height=side,
            num_inference_steps=STEPS,
            true_cfg_scale=1.0,
            generator=torch.Generator("cpu").manual_seed(0),
        )

    turns: dict[str, Turn] = {"plain diffusers loop": script}
    for name, compiled in (("worker", "never"), ("worker, compiled", "always")):
        settings = load_benchmark_settings({"workers": {"compile": compiled}})
        family = NativeImageEditor(worker_spec(model, device, "edit", settings), say)
        family.load()
        turns[name] = lambda family=family: family.run([lease])  # type: ignore[misc]
    table(f"Editing, {side}x{side}, {STEPS} steps", turns, 1, rounds)
