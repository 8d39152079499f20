"""Previews of the denoising of true pipelines: they show the picture, and change none of it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.messages import Lease
from core.tasks import EditTask, GenerateTask
from tests import tiny_pipelines, tiny_recent_pipelines
from tests.test_native_image_generator import spec_for

Pixels = np.ndarray[Any, Any]

SIDE = 64  # pixels


def build(module: Any, name: str, folder: Path) -> None:
    """Save a tiny pipeline whose latents are moved and scaled, as those of real models are."""
    if name == "flux2":
        tiny_recent_pipelines.save_flux2(folder)
        return
    pipeline = getattr(module, f"build_{name}")()
    vae = pipeline.vae
    if vae.config.get("latents_mean") is not None:
        count = len(vae.config.latents_mean)
        means = [2.0 * (-1) ** n for n in range(count)]
        vae.register_to_config(latents_mean=means, latents_std=[0.5 + n for n in range(count)])
    elif vae.config.get("scaling_factor") is not None:
        vae.register_to_config(scaling_factor=0.4, shift_factor=0.1)
    pipeline.save_pretrained(folder)


PAINTERS = ("z_image", "sdxl", "flux", "qwen_image", "qwen_image_21", "flux2", "flux2_klein")
EDITORS = ("flux_kontext", "qwen_image_edit", "qwen_image_edit_plus", "qwen_image_21", "flux2")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Callable[[str], Path]:
    folders = {"z_image": tiny_model}

    def built(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("previews") / name
            recent = name in ("qwen_image_21", "flux2", "flux2_klein")
            build(tiny_recent_pipelines if recent else tiny_pipelines, name, folders[name])
        return folders[name]

    return built


class Worker:
    """A worker's own class in this process; gives pictures and what it showed before."""

    def __init__(self, model: Path, role: str, **settings: Any) -> None:
        from workers.models.native_image_editor import NativeImageEditor
        from workers.models.native_image_generator import NativeImageGenerator

        kind = NativeImageEditor if role == "edit" else NativeImageGenerator
        spec = dataclasses.replace(spec_for(str(model)), role=role, **settings)
        self.logged: list[str] = []
        self.shown: list[Any] = []
        self.family = kind(spec, lambda level, text: self.logged.append(text))
        self.family.on_previews(self.shown.append)
        self.family.load()

    def draw(self, task: Any, previews: int = 0) -> Pixels:
        return self.draw_together([task], [previews])[0]

    def draw_together(self, tasks: Sequence[Any], previews: Sequence[int]) -> list[Pixels]:
        """Draw tasks as one group; `previews` by task."""
        self.shown.clear()
        leases = [
            Lease(str(n), 1, task, None, "fingerprint", "unused.png", previews=wanted)
            for n, (task, wanted) in enumerate(zip(tasks, previews, strict=True))
        ]
        products: list[Any] = self.family.run(leases)
        return [np.asarray(product.image) for product in products]

    @property
    def steps(self) -> list[tuple[int, int, int]]:
        """Number, step and all steps of each preview that was shown."""
        return [(sketch.number, sketch.step, sketch.total) for sketch in self.shown]


def drawing(**fields: Any) -> GenerateTask:
    size: dict[str, Any] = {"width": SIDE, "height": SIDE, "num_inference_steps": 4}
    return GenerateTask(**{"prompt": "a red house", "seed": 1, **size, **fields})


def likeness(preview: Image.Image, picture: Pixels) -> float:
    """Correlation of a preview with a picture that is made as small; 1 is the same."""
    small = Image.fromarray(picture).convert("RGB").resize(preview.size, Image.Resampling.BOX)
    pair = np.asarray(preview, float).ravel(), np.asarray(small, float).ravel()
    return float(np.corrcoef(*pair)[0, 1])


def shows_the_picture_and_leaves_it_alone(worker: Worker, task: Any, other: Any) -> None:
    plain = worker.draw(task)
    assert not worker.shown
    watched = worker.draw(task, previews=3)
    assert np.array_equal(plain, watched), "previews changed the picture"
    assert not worker.logged
    assert worker.steps == [(1, 1, 4), (2, 2, 4), (3, 3, 4)]
    first, newest = worker.shown[0].picture(), worker.shown[-1].picture()
    assert newest.mode == "RGB" and newest.size == (SIDE, SIDE)
    another = worker.draw(other)
    assert likeness(first, plain) > 0.8, "it shows the noise"
    assert likeness(newest, plain) > max(0.9, likeness(newest, another))
    # Nothing stays behind in the pipeline: without previews all is as before.
    assert np.array_equal(plain, worker.draw(task)) and not worker.shown


@pytest.mark.parametrize("name", PAINTERS)
def test_a_preview_shows_what_the_picture_will_be_and_changes_no_pixel(
    checkpoint: Callable[[str], Path], name: str
) -> None:
    worker = Worker(checkpoint(name), "generate")
    shows_the_picture_and_leaves_it_alone(worker, drawing(), drawing(seed=2))


@pytest.mark.parametrize("name", EDITORS)
def test_an_edits_preview_shows_the_edit_and_changes_no_pixel(
    checkpoint: Callable[[str], Path], pictures: list[str], name: str
) -> None:
    worker = Worker(checkpoint(name), "edit")

    def editing(seed: int) -> EditTask:
        areas: dict[str, Any] = {"working_area": SIDE**2, "condition_area": 32**2}
        size: dict[str, Any] = {"width": SIDE, "height": SIDE, "num_inference_steps": 4}
        return EditTask("make it night", (pictures[0],), seed=seed, **size, **areas)

    shows_the_picture_and_leaves_it_alone(worker, editing(1), editing(2))


def test_an_edit_within_a_mask_is_shown_as_any_other(
    checkpoint: Callable[[str], Path], pictures: list[str], tmp_path: Path
) -> None:
    """By the sister pipeline, whose steps nobody looked at when it was made.

    What the mask keeps is put back behind each step: of what is shown there the model decides, and
    this one has learned nothing.
    """
    worker = Worker(checkpoint("flux_kontext"), "edit")
    within = Image.new("L", (SIDE, SIDE), 0)
    within.paste(255, (0, 0, SIDE // 2, SIDE))
    within.save(tmp_path / "mask.png")

    task = EditTask(
        "make it night",
        (pictures[0],),
        width=SIDE,
        height=SIDE,
        num_inference_steps=4,
        working_area=SIDE**2,
        seed=1,
        mask=str(tmp_path / "mask.png"),
    )
    plain = worker.draw(task)
    assert np.array_equal(plain, worker.draw(task, previews=3)), "previews changed the picture"
    assert worker.steps == [(1, 1, 4), (2, 2, 4), (3, 3, 4)] and not worker.logged
    assert all(sketch.picture().size == (SIDE, SIDE) for sketch in worker.shown)
    worker.draw(task)
    assert not worker.shown


@pytest.mark.parametrize(
    "scheduler",
    [
        "DPMSolverMultistepScheduler",
        "HeunDiscreteScheduler",
        "LCMScheduler",
        "PNDMScheduler",
        "TCDScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_a_preview_is_clean_whatever_the_scheduler_computes_with(
    checkpoint: Callable[[str], Path], scheduler: str
) -> None:
    worker = Worker(checkpoint("sdxl"), "generate", scheduler={"class": scheduler})
    plain = worker.draw(drawing())
    assert np.array_equal(plain, worker.draw(drawing(), previews=3))
    assert not worker.logged
    assert [total for *_, total in worker.steps] == [4] * 3
    assert all(likeness(sketch.picture(), plain) > 0.9 for sketch in worker.shown)


def test_pictures_that_are_drawn_together_have_each_its_own_previews(
    checkpoint: Callable[[str], Path],
) -> None:
    worker = Worker(checkpoint("z_image"), "generate", group_size=3)
    tasks = [drawing(seed=seed, num_inference_steps=8) for seed in range(3)]
    plain = worker.draw_together(tasks, [0, 0, 0])
    watched = worker.draw_together(tasks, [3, 0, 1])
    assert all(map(np.array_equal, plain, watched))
    assert [(s.lease.lease_id, s.number, s.step) for s in worker.shown] == [
        ("0", 1, 2), ("0", 2, 4), ("2", 1, 4), ("0", 3, 6),
    ]  # fmt: skip
    newest, of_the_third = worker.shown[3].picture(), worker.shown[2].picture()
    assert likeness(newest, plain[0]) > likeness(newest, plain[2])
    assert likeness(of_the_third, plain[2]) > likeness(of_the_third, plain[0])


def test_a_large_picture_is_shown_in_half_its_size() -> None:
    """By the demo model, whose trained VAE makes of smaller latents the same picture in small."""
    from demo_model import __file__ as demo_model

    worker = Worker(Path(demo_model).parent / "checkpoint", "generate")
    large: dict[str, Any] = {"width": 256, "height": 192, "num_inference_steps": 4}
    plain = worker.draw(drawing(**large))
    assert np.array_equal(plain, worker.draw(drawing(**large), previews=2))
    sizes = {sketch.picture().size for sketch in worker.shown}
    assert worker.steps == [(1, 1, 4), (2, 3, 4)] and sizes == {(128, 96)}
    first, second = (sketch.picture() for sketch in worker.shown)
    assert likeness(second, plain) > max(0.8, likeness(first, plain))
    other = worker.draw(drawing(**large, prompt="a blue boat on the sea", seed=9))
    assert likeness(second, plain) > likeness(second, other)


def test_where_no_preview_can_be_made_the_picture_is_and_it_is_said_once(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(checkpoint("z_image"), "generate")
    plain = worker.draw(drawing())

    def lacks_memory(*_: Any, **__: Any) -> None:
        raise MemoryError("out of memory (simulated)")

    monkeypatch.setattr("workers.models.denoising_previews.decode_small", lacks_memory)
    for _ in range(2):
        assert np.array_equal(plain, worker.draw(drawing(), previews=3))
    assert not worker.shown and len(worker.logged) == 1 and "out of memory" in worker.logged[0]


def test_a_vae_that_waits_in_host_memory_comes_for_a_preview_and_the_denoiser_stays(
    checkpoint: Callable[[str], Path],
) -> None:
    """Memory mode `offload`: an exchange of the two would take seconds."""
    from accelerate.hooks import CpuOffload, UserCpuOffloadHook, add_hook_to_module
    from torch import nn

    worker = Worker(checkpoint("z_image"), "generate")
    plain = worker.draw(drawing())
    moves: list[str] = []

    class Denoiser(UserCpuOffloadHook):  # type: ignore[misc]
        def offload(self) -> None:
            moves.append("denoiser leaves")

    class Waiting(CpuOffload):  # type: ignore[misc]
        def init_hook(self, module: nn.Module) -> nn.Module:
            moves.append("vae waits")
            return module

    on_a_device = nn.Linear(1, 1, device="meta")
    hook = Waiting("cpu", Denoiser(on_a_device, CpuOffload("cpu")))
    add_hook_to_module(worker.family.pipeline.vae, hook)
    moves.clear()
    assert np.array_equal(plain, worker.draw(drawing(), previews=2))
    assert len(worker.shown) == 2
    assert moves == ["vae waits", "vae waits", "denoiser leaves"], "the last is the picture's own"
